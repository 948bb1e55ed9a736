#pragma once
// Grid sizes, and launches that follow one another without a gap.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cuda/device/check.hpp"

namespace llama3d::cuda {

template <class T>
constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

/// Blocks for `items` items, `each` a block.
inline unsigned blocks_for(std::int64_t items, std::int64_t each) {
  return static_cast<unsigned>(std::max<std::int64_t>(1, divide_up(items, each)));
}

/// Whether the GPU in use runs code that waits for the work before it by itself (compiled for sm_90 and up),
/// so that blocks may take their places early. A newer GPU with code compiled for sm_80 must not.
bool gpu_has_dependent_launch();

#ifdef __CUDACC__

/// First of all in every kernel given to launch_dependent, on every path: waits until the work queued before
/// it is done and seen.
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
/// Lets what is queued behind this kernel take places as soon as every block of it has begun; without it,
/// when every block has ended.
__device__ __forceinline__ void grid_dependency_launch() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// Before launches that give a block this much dynamic shared memory, above 48 KiB.
template <class... Parameters>
void take_shared_memory(void (*kernel)(Parameters...), int bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "raising a kernel's limit of shared memory");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared),
        "preferring shared memory to cache");
}

/// Launches a kernel that begins with grid_dependency_wait(): its blocks take their places while the last
/// ones of the work before it still run, which hides the microsecond or two that starting a grid takes.
template <class... Parameters, class... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 grid, unsigned threads, cudaStream_t stream,
                      Arguments&&... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = gpu_has_dependent_launch() ? 1 : 0;
  // The status is also the last error, which check_launch reads.
  cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

#endif

}  // namespace llama3d::cuda
