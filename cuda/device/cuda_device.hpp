#pragma once

#include <limits>
#include <memory>
#include <string>

#include "compute/device.hpp"

namespace llama3d {

/// GPUs that this process can see; 0 when there is no driver.
int cuda_device_count();

/// What tells the GPU that make_cuda_device would take from every other of its host; empty where there is
/// none.
std::string cuda_device_identity(int node_rank);

/// How a rank stands to the others of its host. beside_peers: their GPUs may map its memory. shared: they
/// compute on the same GPU, so algorithms are not chosen by their times.
enum class GpuUse { alone, beside_peers, shared };

/// The GPU of a rank: of those that this process can see, the one at the rank's place on its node, counted
/// around. So a launcher may leave all GPUs of a node to every rank, or show each rank its own. Throws
/// ConfigurationError, one line, where there is no GPU, or the driver or the GPU is too old for this build.
/// Attention is chosen for the GPU's compute capability, or for `architecture` (80, 90, ...) where that is
/// less.
std::unique_ptr<Device> make_cuda_device(int node_rank, GpuUse use = GpuUse::alone,
                                         int architecture = std::numeric_limits<int>::max());

}  // namespace llama3d
