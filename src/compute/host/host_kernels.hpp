#pragma once
// The operations of Kernels on the CPU. One file a concern: data, matmul, norm, rope, attention, swiglu,
// embedding, loss, optimizer. Contracts are in compute/kernels.hpp.

#include "compute/host/workspace.hpp"
#include "compute/kernels.hpp"

namespace llama3d::host {

/// Executes each operation before it returns, on `threads` threads; streams are ignored. The same call gives
/// the same bits for a given number of threads. Not for concurrent use: operations share the workspace.
class HostKernels : public Kernels {
 public:
  explicit HostKernels(int threads) : threads_(threads) {}

  std::size_t workspace_bytes(const WorkspaceRequest& request) const override;
  std::size_t logits_bytes() const override { return std::size_t{64} << 20; }
  void set_workspace(const Tensor& workspace) override;

 protected:
  LLAMA3D_KERNEL_OPERATIONS(LLAMA3D_OVERRIDE_OPERATION)

 private:
  /// All of the workspace; an operation that needs none works without one.
  Scratch scratch() const;

  int threads_;
  Tensor workspace_;
};

}  // namespace llama3d::host
