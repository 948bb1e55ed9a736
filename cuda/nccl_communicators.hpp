#pragma once

#include <memory>

#include "compute/device.hpp"
#include "mpi/communicator.hpp"
#include "mpi/control_plane.hpp"
#include "mpi/process_grid.hpp"

namespace llama3d {

/// The grid's communicators for tensors of `device`, this rank's GPU and the one in use. The first contact
/// travels over `control`. Collective. `shared_gpus`: several ranks use one GPU, which takes NCCL 2.30 or
/// later and is slow. A grid of one rank needs no NCCL. Throws ConfigurationError where the build or the
/// library can't do it.
std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           Device& device, bool shared_gpus);

}  // namespace llama3d
