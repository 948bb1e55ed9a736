#include "cli/backend.hpp"

#include <sched.h>

#include <algorithm>

#include "base/error.hpp"
#include "compute/host/host_device.hpp"
#if LLAMA3D_CUDA
#include "cuda/cuda_device.hpp"
#endif

namespace llama3d {
namespace {

/// Cores this process may run on: a launcher that binds ranks has divided them already.
int usable_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

#if LLAMA3D_CUDA
bool has_gpu() {
  return cuda_device_count() > 0;
}
std::unique_ptr<Device> make_gpu(int ordinal) {
  return make_cuda_device(ordinal);
}
#else
bool has_gpu() {
  return false;
}
std::unique_ptr<Device> make_gpu(int) {
  throw ConfigurationError("--device cuda: this llama3d was built without CUDA; use --device cpu");
}
#endif

}  // namespace

std::unique_ptr<Device> make_device(const std::string& word, int threads, const ControlPlane& control) {
  if (word != "cpu" && word != "cuda" && word != "auto")
    throw ConfigurationError(fmt::format("--device {}: unknown; use cpu, cuda or auto", word));
  // Ranks on GPUs cannot exchange tensors yet: NCCL is to come.
  const bool alone = control.size() == 1;
  if (word == "cuda" && !alone)
    throw ConfigurationError(
        fmt::format("--device cuda: {} ranks (this llama3d trains on one GPU only); start "
                    "one rank, or use --device cpu",
                    control.size()));
  if (word == "cuda" || (word == "auto" && alone && has_gpu())) return make_gpu(control.node_rank());
  if (threads < 0)
    throw ConfigurationError(fmt::format("--threads {}: must be 0 (automatic) or more", threads));
  return make_host_device(threads > 0 ? threads : std::max(1, usable_cores() / control.node_size()));
}

std::unique_ptr<GridCommunicators> make_communicators(MpiSession& session, const ProcessGrid& grid) {
  return grid.shape().world() == 1 ? make_local_communicators() : session.make_communicators(grid);
}

}  // namespace llama3d
