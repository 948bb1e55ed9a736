#pragma once
// The only place that knows machines and networks by name.

#include <memory>
#include <string>

#include "compute/device.hpp"
#include "mpi/mpi_session.hpp"
#include "train/runtime.hpp"

namespace llama3d {

/// `--device cpu|cuda|auto`. `node_size` ranks share the node: each gets its part of the cores unless
/// `threads` is given. Throws ConfigurationError for an unknown word, for cuda in a build without it, where
/// there is no GPU, and with several ranks.
std::unique_ptr<Device> make_device(const std::string& word, int threads, const ControlPlane& control);

/// Communicators for tensors of this device.
std::unique_ptr<GridCommunicators> make_communicators(MpiSession& session, const ProcessGrid& grid);

}  // namespace llama3d
