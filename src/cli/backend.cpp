#include "cli/backend.hpp"

#include <sched.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.hpp"
#include "compute/host/host_device.hpp"
#include "mpi/failure.hpp"
#include "mpi/watchdog.hpp"
#if LLAMA3D_CUDA
#include "cuda/cuda_device.hpp"
#include "cuda/nccl_communicators.hpp"
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
std::unique_ptr<Device> make_gpu(int node_rank) {
  return make_cuda_device(node_rank);
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid& grid, ControlPlane& control,
                                                Device& device, bool shared) {
  return make_nccl_communicators(grid, control, device, shared);
}
#else
bool has_gpu() {
  return false;
}
std::unique_ptr<Device> make_gpu(int) {
  throw ConfigurationError("--device cuda: this llama3d was built without CUDA; use --device cpu");
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid&, ControlPlane&, Device&, bool) {
  throw ContractViolation("GPUs in a build without CUDA");
}
#endif

/// What a rank computes on: kind, then host and device for those that are one rank's own.
struct Place {
  std::string kind, device;

  static std::vector<Place> of_all(const Device& device, ControlPlane& control) {
    const std::string identity = device.identity();
    const auto kinds = control.all_gather(device.kind());
    const auto devices = control.all_gather(identity.empty() ? identity : control.host() + " " + identity);
    std::vector<Place> places;
    for (std::size_t rank = 0; rank < kinds.size(); ++rank) places.push_back({kinds[rank], devices[rank]});
    return places;
  }
};

void expect_one_kind(const std::vector<Place>& places) {
  for (std::size_t rank = 0; rank < places.size(); ++rank)
    if (places[rank].kind != places[0].kind)
      throw ConfigurationError(
          fmt::format("--device auto: rank 0 has {}, rank {} {}; give --device cpu or cuda", places[0].kind,
                      rank, places[rank].kind));
}

void expect_own_devices(const std::vector<Place>& places) {
  std::map<std::string, std::size_t> owners;
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    if (places[rank].device.empty()) continue;
    const auto [owner, own] = owners.emplace(places[rank].device, rank);
    if (!own)
      throw ConfigurationError(
          fmt::format("--device cuda: ranks {} and {} have the same GPU ({}); start one rank a GPU, or give "
                      "--allow-gpu-sharing for a test",
                      owner->second, rank, places[rank].device));
  }
}

}  // namespace

std::unique_ptr<Device> make_device(const MachineOptions& options, const ControlPlane& control) {
  const std::string& word = options.device;
  if (word != "cpu" && word != "cuda" && word != "auto")
    throw ConfigurationError(fmt::format("--device {}: unknown; use cpu, cuda or auto", word));
  if (word == "cuda" || (word == "auto" && has_gpu())) return make_gpu(control.node_rank());
  if (options.threads < 0)
    throw ConfigurationError(fmt::format("--threads {}: must be 0 (automatic) or more", options.threads));
  return make_host_device(options.threads > 0 ? options.threads
                                              : std::max(1, usable_cores() / control.node_size()));
}

std::unique_ptr<Device> make_job_device(const MachineOptions& options, ControlPlane& control) {
  std::unique_ptr<Device> device;
  fail_together(control, [&] { device = make_device(options, control); });
  const auto places = Place::of_all(*device, control);
  fail_together(control, [&] {
    expect_one_kind(places);
    if (!options.allow_gpu_sharing) expect_own_devices(places);
  });
  return device;
}

Runtime make_runtime(MpiSession& session, Device& device, const MachineOptions& options,
                     double comm_timeout) {
  const bool on_gpus = device.kind() == "cuda", shared = options.allow_gpu_sharing;
  const auto connect = [&session, &device, on_gpus, shared, comm_timeout](const ProcessGrid& grid) {
    // A network that lets nobody through is the commonest hang.
    Activity nothing_else;
    std::unique_ptr<Watchdog> watchdog;
    if (on_gpus && grid.shape().world() > 1 && comm_timeout > 0)
      watchdog = std::make_unique<Watchdog>(session.control(), nothing_else, std::vector<Communicator*>(),
                                            WatchdogOptions{.limit = comm_timeout});
    if (on_gpus) return connect_gpus(grid, session.control(), device, shared);
    return grid.shape().world() == 1 ? make_local_communicators() : session.make_communicators(grid);
  };
  return {device, session.control(), connect, on_gpus && options.register_buffers, comm_timeout};
}

}  // namespace llama3d
