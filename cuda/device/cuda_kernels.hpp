#pragma once
// The operations of Kernels on one NVIDIA GPU. One file a concern: data, matmul, norm, rope, attention,
// swiglu, embedding, loss, optimizer. Contracts are in compute/kernels.hpp.

#include <memory>

#include "compute/kernels.hpp"
#include "cuda/device/gpu_traits.hpp"

namespace llama3d::cuda {

class MatmulTuner;

/// Queues each operation on its stream. The same call gives the same bits, but for the backward pass of
/// attention on tensor cores, whose atomic additions have no order. Operations share the workspace, so one
/// stream at a time.
class CudaKernels final : public Kernels {
 public:
  /// `counters`: two in the GPU's memory, zero; see AttentionCall.
  CudaKernels(const GpuTraits& gpu, int* counters);
  ~CudaKernels() override;

  std::size_t workspace_bytes(const WorkspaceRequest& request) const override;
  /// 4096 rows of Llama 3's vocabulary in bf16: enough for the GEMMs of the head to run at full speed.
  std::size_t logits_bytes() const override { return std::size_t{1} << 30; }
  void set_workspace(const Tensor& workspace) override;
  void set_use(KernelUse use) override;

 private:
  LLAMA3D_KERNEL_OPERATIONS(LLAMA3D_OVERRIDE_OPERATION)

  GpuTraits gpu_;
  int* counters_;
  Tensor workspace_;
  std::unique_ptr<MatmulTuner> matmul_;
};

}  // namespace llama3d::cuda
