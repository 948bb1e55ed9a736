#include "cuda/device/check.hpp"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

/// Stands for all kernels of this build: compiled for the same architectures.
__global__ void representative() {}

}  // namespace

bool gpu_has_dependent_launch() {
  // A process uses one GPU.
  static const bool early = [] {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, representative), "asking what the GPU's code was compiled for");
    return attributes.ptxVersion >= 90;
  }();
  return early;
}

}  // namespace llama3d::cuda
