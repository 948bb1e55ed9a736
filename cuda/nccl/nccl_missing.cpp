// Stands in for NCCL where the build did not find it.

#include <cuda_runtime_api.h>

#include "base/error.hpp"
#include "comm/failure.hpp"
#include "comm/local_communicator.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/peer_memory.hpp"
#include "cuda/nccl/nccl_communicators.hpp"

namespace llama3d {

std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           Device&, GpuUse) {
  if (grid.shape().world() == 1) return make_local_communicators(cuda::copy_gpu_tensor);
  fail_together(control, [&] {
    throw ConfigurationError(fmt::format(
        "`device` cuda: {} ranks, but this llama3d was built without NCCL; start one rank, or build "
        "where nccl.h and libnccl.so are",
        grid.shape().world()));
  });
  return nullptr;  // not reached
}

void* cuda::allocate_peer_memory(std::size_t bytes, std::string& failure) {
  void* memory = nullptr;
  const auto status = cudaMalloc(&memory, bytes);
  if (status == cudaSuccess) return memory;
  failure = cudaGetErrorString(status);
  return nullptr;
}

void cuda::free_peer_memory(void* memory) noexcept {
  cudaFree(memory);
}

}  // namespace llama3d
