#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/process_grid.hpp"
#include "compute/device.hpp"
#include "cuda/device/cuda_device.hpp"

namespace llama3d {

/// The grid's communicators for tensors of `device`, this rank's GPU and the one in use. The first contact
/// travels over `control`, and takes what memory NCCL will need. Collective. GPUs that are shared take NCCL
/// 2.30 or later and are slow. A grid of one rank needs no NCCL. Throws ConfigurationError where the build or
/// the library can't do it.
std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           Device& device, GpuUse use);

}  // namespace llama3d
