#include "cuda/launch.cuh"
#include "cuda/check.hpp"

namespace llama3d::cuda {

bool gpu_launches_early() {
  // A process uses one GPU.
  static const bool early = [] {
    int device = 0, major = 0;
    check(cudaGetDevice(&device), "asking for the GPU in use");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
          "asking for the GPU's architecture");
    return major >= 9;
  }();
  return early;
}

}  // namespace llama3d::cuda
