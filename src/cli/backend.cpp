#include "cli/backend.hpp"

#include <sched.h>

#include <algorithm>

#include "base/error.hpp"
#include "compute/host/host_device.hpp"

namespace llama3d {
namespace {

/// Cores this process may run on: a launcher that binds ranks has divided them already.
int usable_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

std::unique_ptr<Device> make_device(const std::string& word, int threads, const ControlPlane& control) {
  if (word == "cuda")
    throw ConfigurationError("--device cuda: this llama3d was built without CUDA; use --device cpu");
  if (word != "cpu" && word != "auto")
    throw ConfigurationError(fmt::format("--device {}: unknown; use cpu, cuda or auto", word));
  if (threads < 0)
    throw ConfigurationError(fmt::format("--threads {}: must be 0 (automatic) or more", threads));
  return make_host_device(threads > 0 ? threads : std::max(1, usable_cores() / control.node_size()));
}

std::unique_ptr<GridCommunicators> make_communicators(MpiSession& session, const ProcessGrid& grid) {
  return grid.shape().world() == 1 ? make_local_communicators() : session.make_communicators(grid);
}

}  // namespace llama3d
