#pragma once

#include <cstddef>
#include <string>

namespace llama3d::cuda {

/// What kernels need to know of the GPU to choose grids and variants.
struct GpuTraits {
  int multiprocessors = 0;
  int architecture = 0;          ///< 10 * major + minor compute capability
  std::string name;              ///< as the vendor writes it
  std::size_t shared_bytes = 0;  ///< most shared memory of a block
  bool shared = false;           ///< by other ranks: what is timed shows them too
};

/// Why a driver can't be used with this build's runtime: that it is older, or that there is none (0).
/// Versions as CUDA gives them, 1000 * major + 10 * minor.
std::string reason_against_driver(int driver, int runtime);

/// Throws ConfigurationError, one line, for a GPU older than every kernel here is written for.
void require_supported(const GpuTraits& traits);

}  // namespace llama3d::cuda
