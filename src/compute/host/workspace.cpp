#include "compute/host/workspace.hpp"

#include <algorithm>

#include "compute/host/host_kernels.hpp"

namespace llama3d::host {

float* Scratch::take(std::int64_t n, const char* what) {
  constexpr std::int64_t line = 16;
  const std::int64_t begin = used_;
  used_ += (n + line - 1) / line * line;
  if (capacity_ == 0 && !memory_) return nullptr;
  LLAMA3D_EXPECT(used_ <= capacity_, "workspace of {} bytes is too small: {} needs {}", capacity_ * 4, what,
                 used_ * 4);
  return memory_ + begin;
}

std::size_t HostKernels::workspace_bytes(const WorkspaceRequest& request) const {
  std::int64_t floats = std::max({matmul_scratch(request), attention_forward_scratch(request, threads_),
                                  attention_cached_scratch(request, threads_), std::int64_t{16}});
  if (request.backward)
    floats = std::max({floats, norm_scratch(request, threads_), heads_scratch(request, threads_),
                       embedding_scratch(request), attention_backward_scratch(request, threads_)});
  return static_cast<std::size_t>(floats) * sizeof(float);
}

void HostKernels::set_workspace(const Tensor& workspace) {
  LLAMA3D_EXPECT(workspace && workspace.dtype() == DType::fp32, "the workspace must be fp32");
  workspace_ = workspace;
}

Scratch HostKernels::scratch() const {
  // Without a workspace any request is refused: one float is not enough for a cache line.
  if (!workspace_) return Scratch(nullptr, 1);
  return Scratch(static_cast<float*>(workspace_.data()), workspace_.elements());
}

}  // namespace llama3d::host
