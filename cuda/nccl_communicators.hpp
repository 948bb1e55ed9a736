#pragma once

#include <memory>

#include "compute/device.hpp"
#include "cuda/cuda_device.hpp"
#include "mpi/communicator.hpp"
#include "mpi/control_plane.hpp"
#include "mpi/process_grid.hpp"

namespace llama3d {

/// The grid's communicators for tensors of `device`, this rank's GPU and the one in use. The first contact
/// travels over `control`, and takes what memory NCCL will need. Collective. GPUs that are shared take NCCL
/// 2.30 or later and are slow. A grid of one rank needs no NCCL. Throws ConfigurationError where the build or
/// the library can't do it.
std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           Device& device, GpuUse use);

}  // namespace llama3d
