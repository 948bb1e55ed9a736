#pragma once
// Scratch space of the operations, carved from the one tensor that set_workspace gives.

#include <cstddef>
#include <cstdint>

#include "compute/kernels.hpp"

namespace llama3d::host {

/// Hands out fp32 scratch front to back; without memory it only counts, so that the code that uses scratch
/// space is also the code that says how much it needs.
class Scratch {
 public:
  Scratch() = default;
  Scratch(float* memory, std::int64_t capacity) : memory_(memory), capacity_(capacity) {}

  /// `n` floats at a cache line. More than there is, is a ContractViolation naming `what`.
  float* take(std::int64_t n, const char* what);
  /// Floats handed out so far.
  std::int64_t used() const { return used_; }

 private:
  float* memory_ = nullptr;
  std::int64_t capacity_ = 0;
  std::int64_t used_ = 0;
};

/// Rows of activations that a GEMM widens from bf16 at a time.
inline constexpr std::int64_t matmul_chunk = 512;

/// Floats each group of operations needs for calls within the request, by `threads` threads.
std::int64_t matmul_scratch(const WorkspaceRequest& request);
std::int64_t norm_scratch(const WorkspaceRequest& request, int threads);
std::int64_t heads_scratch(const WorkspaceRequest& request, int threads);
std::int64_t embedding_scratch(const WorkspaceRequest& request);
std::int64_t attention_forward_scratch(const WorkspaceRequest& request, int threads);
std::int64_t attention_cached_scratch(const WorkspaceRequest& request, int threads);
std::int64_t attention_backward_scratch(const WorkspaceRequest& request, int threads);

}  // namespace llama3d::host
