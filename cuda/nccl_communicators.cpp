#include "cuda/nccl_communicators.hpp"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "cuda/check.hpp"
#include "cuda/nccl_communicator.hpp"
#include "mpi/local_communicator.hpp"

namespace llama3d {
namespace {

using cuda::check_nccl;
using cuda::copy_gpu_tensor;
using cuda::NcclCommHandle;

void allow_shared_gpus() {
  if (!cuda::nccl_at_least(2, 30))
    throw ConfigurationError(fmt::format(
        "--allow-gpu-sharing: NCCL {} lets one rank use a GPU, 2.30 and later several; give each rank "
        "a GPU of its own, or put a newer libnccl.so.2 on LD_LIBRARY_PATH",
        cuda::nccl_version()));
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", /*overwrite=*/0);
}

NcclCommHandle connect_world(ControlPlane& control) {
  ncclUniqueId id{};
  if (control.rank() == 0) check_nccl(ncclGetUniqueId(&id), "asking NCCL for an address");
  const std::string address = control.broadcast(std::string(id.internal, sizeof id.internal), 0);
  std::memcpy(id.internal, address.data(), sizeof id.internal);
  ncclComm_t comm = nullptr;
  check_nccl(ncclCommInitRank(&comm, control.size(), id, control.rank()), "connecting the ranks");
  return NcclCommHandle(comm);
}

/// Builds a rank's communicators one by one; every rank of the job takes part in each.
class Builder {
 public:
  Builder(const NcclCommHandle& world, CommunicationLog& log, int ordinal)
      : world_(&world), log_(&log), ordinal_(ordinal) {}

  /// The ranks that give the same color, `size` of them, ordered by `place`; none for color -1.
  std::unique_ptr<Communicator> group(int color, int size, int place, StreamPriority priority) const {
    if (size == 1) return std::make_unique<LocalCommunicator>(*log_, copy_gpu_tensor);
    ncclComm_t part = nullptr;
    check_nccl(ncclCommSplit(world_->get(), color < 0 ? NCCL_SPLIT_NOCOLOR : color, place, &part, nullptr),
               "connecting a group of ranks");
    if (!part) return nullptr;
    return std::make_unique<cuda::NcclCommunicator>(NcclCommHandle(part), *log_, ordinal_, priority);
  }

 private:
  const NcclCommHandle* world_;
  CommunicationLog* log_;
  int ordinal_;
};

}  // namespace

std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           bool shared_gpus) {
  const auto& [tp_size, pp_size, dp_size] = grid.shape();
  const auto& [tp, pp, dp] = grid.coordinate();
  if (grid.shape().world() == 1) return make_local_communicators(copy_gpu_tensor);
  if (shared_gpus) allow_shared_gpus();
  int ordinal = 0;
  cuda::check(cudaGetDevice(&ordinal), "asking for the GPU in use");
  auto group = std::make_unique<GridCommunicators>();
  NcclCommHandle world = connect_world(control);
  const Builder builder(world, group->log, ordinal);
  const auto high = StreamPriority::high;
  group->tp = builder.group(pp * dp_size + dp, tp_size, tp, high);
  group->dp = builder.group(pp * tp_size + tp, dp_size, dp, high);
  group->pp_forward = builder.group(dp * tp_size + tp, pp_size, pp, high);
  group->pp_backward = builder.group(dp * tp_size + tp, pp_size, pp, high);
  const bool at_an_end = grid.first_stage() || grid.last_stage();
  if (pp_size > 1) group->embedding = builder.group(at_an_end ? dp * tp_size + tp : -1, 2, pp, high);
  group->world = std::make_unique<cuda::NcclCommunicator>(std::move(world), group->log, ordinal, high);
  return group;
}

}  // namespace llama3d
