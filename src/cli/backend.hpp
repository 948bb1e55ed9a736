#pragma once
// The only place that knows machines and networks by name.

#include <memory>

#include "cli/job.hpp"
#include "cli/machine_options.hpp"
#include "compute/device.hpp"
#include "parallel/runtime.hpp"

namespace llama3d {

/// The device that the options name, for the rank of `control`: on CPUs with a thread for every core that the
/// process may use unless `threads` is given. Throws ConfigurationError for an unknown word, for cuda in a
/// build without it and where there is no GPU. Not collective.
std::unique_ptr<Device> make_device(const MachineOptions& options, const ControlPlane& control);

/// The same for every rank of a job, on CPUs with its part of the cores that ranks share. `auto` is cuda
/// where every rank has a GPU of its own. Collective: errors are those of all ranks, and one is that cuda was
/// asked for and two ranks have the same GPU, unless the options allow that.
std::unique_ptr<Device> make_job_device(const MachineOptions& options, ControlPlane& control);

/// The job on this device. Collective.
Runtime make_runtime(const Job& job, Device& device, const MachineOptions& options);

}  // namespace llama3d
