#include "cuda/device/cuda_kernels.hpp"

#include <algorithm>

#include "cuda/device/workspace.hpp"
#include "cuda/gemm/matmul_tuner.hpp"

namespace llama3d::cuda {

CudaKernels::CudaKernels(const GpuTraits& gpu, int* counters)
    : gpu_(gpu),
      counters_(counters),
      matmul_(std::make_unique<MatmulTuner>(gpu, MatmulTuner::default_cache())) {}

CudaKernels::~CudaKernels() = default;

std::size_t CudaKernels::workspace_bytes(const WorkspaceRequest& request) const {
  const std::size_t forward =
      std::max({matmul_scratch(request), attention_cached_scratch(request, gpu_), loss_scratch(request)});
  if (!request.backward) return forward;
  return std::max({forward, attention_scratch(request, gpu_), norm_scratch(request, gpu_),
                   heads_scratch(request, gpu_), embedding_scratch(request), optimizer_scratch()});
}

void CudaKernels::set_workspace(const Tensor& workspace) {
  LLAMA3D_EXPECT(workspace && workspace.dtype() == DType::fp32, "the workspace must be fp32");
  workspace_ = workspace;
}

void CudaKernels::set_use(KernelUse use) {
  matmul_->set_use(use);
}

void* Scratch::take_bytes(std::size_t bytes, const char* what) {
  constexpr std::size_t alignment = 256;
  const std::size_t begin = used_;
  used_ += (bytes + alignment - 1) / alignment * alignment;
  if (counts_) return nullptr;
  LLAMA3D_EXPECT(used_ <= capacity_, "workspace of {} bytes is too small: {} needs {}", capacity_, what,
                 used_);
  return memory_ + begin;
}

}  // namespace llama3d::cuda
