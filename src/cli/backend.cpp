#include "cli/backend.hpp"
#include "comm/local_communicator.hpp"

#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "comm/failure.hpp"
#include "comm/health/watchdog.hpp"
#include "compute/host/host_device.hpp"
#if LLAMA3D_CUDA
#include "cuda/device/cuda_device.hpp"
#include "cuda/nccl/nccl_communicators.hpp"
#endif

namespace llama3d {
namespace {

/// The cores that this process may use, as the launcher or the system leaves them; empty when not known.
std::vector<int> usable_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

/// This rank's part of its cores: of a node's that all its ranks may use, or of those that the launcher bound
/// it to, alone or with others. Collective.
int threads_of_rank(ControlPlane& control) {
  const auto cores = usable_cores();
  const std::string mine = fmt::format("{} {}", control.host(), fmt::join(cores, ","));
  const auto all = control.all_gather(mine);
  const auto sharing = std::count(all.begin(), all.end(), mine);
  return std::max(1, static_cast<int>(std::ssize(cores) / sharing));
}

#if LLAMA3D_CUDA
std::string gpu_identity(int node_rank) {
  return cuda_device_identity(node_rank);
}
/// Ranks of one GPU have nothing to gain from registered memory.
GpuUse use_of_gpu(bool shared, bool registers) {
  if (shared) return GpuUse::shared;
  return registers ? GpuUse::beside_peers : GpuUse::alone;
}
std::unique_ptr<Device> make_gpu(int node_rank, bool shared, bool registers) {
  return make_cuda_device(node_rank, use_of_gpu(shared, registers));
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid& grid, ControlPlane& control,
                                                Device& device, bool shared, bool registers) {
  return make_nccl_communicators(grid, control, device, use_of_gpu(shared, registers));
}
#else
std::string gpu_identity(int) {
  return {};
}
std::unique_ptr<Device> make_gpu(int, bool, bool) {
  throw ConfigurationError("--device cuda: this llama3d was built without CUDA; use --device cpu");
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid&, ControlPlane&, Device&, bool, bool) {
  throw ContractViolation("GPUs in a build without CUDA");
}
#endif

/// Two ranks that would take the same GPU.
using SharedGpu = std::pair<std::size_t, std::size_t>;
std::optional<SharedGpu> find_shared(const std::vector<std::string>& gpus) {
  std::map<std::string, std::size_t> owners;
  for (std::size_t rank = 0; rank < gpus.size(); ++rank) {
    const auto [owner, own] = owners.emplace(gpus[rank], rank);
    if (!own && !gpus[rank].empty()) return SharedGpu{owner->second, rank};
  }
  return std::nullopt;
}

/// The GPU that each rank would take, by host; empty where there is none. Collective.
std::vector<std::string> gpus_of_all(ControlPlane& control) {
  std::string mine;
  fail_together(control, [&] { mine = gpu_identity(control.node_rank()); });
  return control.all_gather(mine.empty() ? mine : control.host() + " " + mine);
}

}  // namespace

std::unique_ptr<Device> make_device(const MachineOptions& options, const ControlPlane& control) {
  const std::string& word = options.device;
  if (word != "cpu" && word != "cuda" && word != "auto")
    throw ConfigurationError(fmt::format("--device {}: unknown; use cpu, cuda or auto", word));
  if (word == "cuda" || (word == "auto" && !gpu_identity(control.node_rank()).empty()))
    return make_gpu(control.node_rank(), options.allow_gpu_sharing,
                    options.register_buffers && control.size() > 1);
  if (options.threads < 0)
    throw ConfigurationError(fmt::format("--threads {}: must be 0 (automatic) or more", options.threads));
  return make_host_device(options.threads > 0 ? options.threads
                                              : std::max(1, static_cast<int>(usable_cores().size())));
}

std::unique_ptr<Device> make_job_device(const MachineOptions& options, ControlPlane& control) {
  MachineOptions chosen = options;
  if (options.device != "cpu") {
    const auto gpus = gpus_of_all(control);
    const bool all_have = std::find(gpus.begin(), gpus.end(), std::string()) == gpus.end();
    const auto shared = find_shared(gpus);
    const bool allowed = options.allow_gpu_sharing || !shared;
    chosen.allow_gpu_sharing = shared.has_value();
    if (options.device == "auto") chosen.device = all_have && allowed ? "cuda" : "cpu";
    fail_together(control, [&] {
      if (options.device == "cuda" && !allowed)
        throw ConfigurationError(fmt::format(
            "--device cuda: ranks {} and {} have the same GPU ({}); start one rank a GPU, or give "
            "--allow-gpu-sharing for a test",
            shared->first, shared->second, gpus[shared->first]));
    });
  }
  if (chosen.device == "cpu" && chosen.threads == 0) chosen.threads = threads_of_rank(control);
  std::unique_ptr<Device> device;
  fail_together(control, [&] { device = make_device(chosen, control); });
  return device;
}

Runtime make_runtime(const Job& job, Device& device, const MachineOptions& options) {
  const bool on_gpus = device.kind() == "cuda",
             shared = on_gpus && find_shared(gpus_of_all(job.control)).has_value();
  const bool registers = on_gpus && options.register_buffers && !shared;
  const auto connect = [&session = job.session, &device, on_gpus, shared,
                        registers](const ProcessGrid& grid) {
    if (on_gpus) return connect_gpus(grid, session.control(), device, shared, registers);
    return grid.shape().world() == 1 ? make_local_communicators() : session.make_communicators(grid);
  };
  return {device, job.control, connect, registers, job.watchdog};
}

}  // namespace llama3d
