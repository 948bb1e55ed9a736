#pragma once
// Scratch space of the operations, carved from the one tensor that set_workspace gives. Operations follow one
// another on a stream, so each may use all of it.

#include "compute/kernels.hpp"
#include "cuda/device/gpu_traits.hpp"

namespace llama3d::cuda {

/// Hands out bytes front to back, 256-byte aligned; without memory it only counts, so that the code that uses
/// scratch space is also the code that says how much it needs.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(const Tensor& workspace)
      : memory_(static_cast<std::byte*>(workspace.data())), capacity_(workspace.bytes()), counts_(false) {}

  /// `n` elements. More than there is, is a ContractViolation naming `what`.
  template <class T>
  T* take(std::int64_t n, const char* what) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(n) * sizeof(T), what));
  }
  /// Bytes handed out so far.
  std::size_t used() const { return used_; }

 private:
  void* take_bytes(std::size_t bytes, const char* what);

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0;
  bool counts_ = true;
};

/// Bytes each group of operations needs for calls within the request.
std::size_t matmul_scratch(const WorkspaceRequest& request);
std::size_t attention_scratch(const WorkspaceRequest& request, const GpuTraits& gpu);
std::size_t attention_cached_scratch(const WorkspaceRequest& request, const GpuTraits& gpu);
std::size_t norm_scratch(const WorkspaceRequest& request, const GpuTraits& gpu);
std::size_t heads_scratch(const WorkspaceRequest& request, const GpuTraits& gpu);
std::size_t embedding_scratch(const WorkspaceRequest& request);
std::size_t loss_scratch(const WorkspaceRequest& request);
std::size_t optimizer_scratch();

}  // namespace llama3d::cuda
