#include "cuda/nccl/nccl_communicators.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "comm/failure.hpp"
#include "comm/labels.hpp"
#include "comm/local_communicator.hpp"
#include "cuda/device/check.hpp"
#include "cuda/nccl/nccl_communicator.hpp"

namespace llama3d {
namespace {

using cuda::check_nccl;
using cuda::copy_gpu_tensor;
using cuda::NcclCommHandle;

/// Most blocks of a group's operations, and where NCCL is to run them.
struct GroupLimits {
  int blocks = 0;  ///< 0: as many as NCCL likes
  int policy = NCCL_CTA_POLICY_DEFAULT;
};
/// They run beside GEMMs for long: fewer blocks leave the GEMMs their multiprocessors.
constexpr GroupLimits background{16}, transfers{8};

constexpr GroupLimits limits_of(Axis axis) {
  switch (axis) {
    // Short and waited for. What is registered is gathered by the GPU's copy engines, which take no
    // multiprocessors.
    case Axis::tensor: return {0, NCCL_CTA_POLICY_ZERO};
    case Axis::context: return background;
    case Axis::pipeline: return transfers;
    case Axis::data: return background;
  }
  return {};
}

void allow_shared_gpus() {
  if (!cuda::nccl_at_least(2, 30))
    throw ConfigurationError(fmt::format(
        "`allow_gpu_sharing`: NCCL {} lets one rank use a GPU, 2.30 and later several; give each rank "
        "a GPU of its own, or put a newer libnccl.so.2 on LD_LIBRARY_PATH",
        cuda::nccl_version()));
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", /*overwrite=*/0);
}

/// Most blocks, and so multiprocessors, that an operation may take. Every one of them has buffers to each
/// peer.
ncclConfig_t with_blocks(int most) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  // A limit of the site's wins.
  if (most > 0 && !std::getenv("NCCL_MAX_CTAS")) config.maxCTAs = most;
  return config;
}

/// Collective.
ncclUniqueId agree_on_address(ControlPlane& control) {
  ncclUniqueId id{};
  if (control.rank() == 0) check_nccl(ncclGetUniqueId(&id), "asking NCCL for an address");
  const std::string address = control.broadcast(std::string(id.internal, sizeof id.internal), 0);
  std::memcpy(id.internal, address.data(), sizeof id.internal);
  return id;
}

NcclCommHandle connect_world(const ncclUniqueId& id, const ProcessGrid& grid) {
  ncclComm_t comm = nullptr;
  // It sums a few numbers a step.
  ncclConfig_t config = with_blocks(1);
  check_nccl(ncclCommInitRankConfig(&comm, grid.shape().world(), id, grid.rank(), &config),
             "connecting the ranks");
  return NcclCommHandle(comm);
}

/// Builds a rank's communicators one by one; every rank of the job takes part in each.
class Builder {
 public:
  Builder(const NcclCommHandle& world, const ProcessGrid& grid, CommunicationLog& log, int ordinal)
      : world_(&world), grid_(&grid), log_(&log), ordinal_(ordinal) {}

  std::unique_ptr<Communicator> group(Axis axis) const {
    if (grid_->size(axis) == 1) return std::make_unique<LocalCommunicator>(*log_, copy_gpu_tensor);
    return split(grid_->color(axis), grid_->rank(axis), limits_of(axis));
  }
  /// None for a rank that is in no such group.
  std::unique_ptr<Communicator> embedding_group() const {
    if (grid_->size(Axis::pipeline) == 1) return nullptr;
    return split(grid_->in_embedding_group() ? grid_->color(Axis::pipeline) : NCCL_SPLIT_NOCOLOR,
                 grid_->rank(Axis::pipeline), transfers);
  }
  std::unique_ptr<Communicator> adopt(NcclCommHandle comm) const {
    return std::make_unique<cuda::NcclCommunicator>(std::move(comm), takedown_, *log_, ordinal_,
                                                    StreamPriority::high);
  }

 private:
  /// The ranks that give the same color, ordered by `key`.
  std::unique_ptr<Communicator> split(int color, int key, const GroupLimits& limits) const {
    ncclComm_t part = nullptr;
    ncclConfig_t config = with_blocks(limits.blocks);
    config.CTAPolicy = limits.policy;
    check_nccl(ncclCommSplit(world_->get(), color, key, &part, &config), "connecting a group of ranks");
    if (!part) return nullptr;
    return adopt(NcclCommHandle(part));
  }

  const NcclCommHandle* world_;
  const ProcessGrid* grid_;
  CommunicationLog* log_;
  int ordinal_;
  std::shared_ptr<cuda::NcclTakedown> takedown_ = std::make_shared<cuda::NcclTakedown>();
};

/// NCCL connects two ranks, and takes the memory for it, when they first have something to say to each other,
/// and holds the host meanwhile: two ranks that began with different groups would wait for each other for
/// ever.
class FirstContact {
 public:
  FirstContact(Device& device, int ranks)
      : elements_(std::clamp<std::int64_t>(most_elements / ranks, 1, elements_a_rank)),
        memory_(device.allocate(static_cast<std::size_t>(std::max<std::int64_t>(elements_ * ranks, 2)) *
                                sizeof(float))),
        stream_(device.create_stream(StreamPriority::normal)) {}
  void finish() { stream_->synchronize(); }

  void collectives(Communicator& group) {
    const int ranks = group.size();
    const Tensor whole = tensor(elements_ * ranks),
                 own = whole.slice(elements_ * group.rank(), elements_ * (group.rank() + 1));
    wait(group.all_reduce(tensor(2), ReduceOperation::sum, label, *stream_));
    wait(group.all_reduce(whole, ReduceOperation::sum, label, *stream_));
    wait(group.all_gather(own, whole, label, *stream_));
    wait(group.reduce_scatter(whole, own, label, *stream_));
  }
  /// NCCL takes memory at the first registration, and at the first operations on what is registered.
  void registered_collectives(Communicator& group) {
    group.register_memory(tensor(elements_ * group.size()));
    collectives(group);
    finish();
    group.unregister_memory();
  }
  /// With both neighbours in the ring of stages.
  void transfers(Communicator& group) {
    const int ranks = group.size(), next = (group.rank() + 1) % ranks,
              previous = (group.rank() + ranks - 1) % ranks;
    const Transfer ring[] = {{Transfer::Direction::send, tensor(1), next},
                             {Transfer::Direction::receive, tensor(2).slice(1, 2), previous}};
    const Transfer back[] = {{Transfer::Direction::send, tensor(1), previous},
                             {Transfer::Direction::receive, tensor(2).slice(1, 2), next}};
    wait(group.exchange(ring, label, *stream_));
    wait(group.exchange(back, label, *stream_));
  }

 private:
  static constexpr Label label = labels::control_connect;
  /// Enough for the ways that NCCL takes with long messages.
  static constexpr std::int64_t elements_a_rank = 1 << 16, most_elements = 1 << 26;

  Tensor tensor(std::int64_t count) const { return {memory_.get(), DType::fp32, {count}}; }
  void wait(WorkHandle work) { work->wait(*stream_); }

  std::int64_t elements_;
  DeviceMemory memory_;
  std::unique_ptr<Stream> stream_;
};

void make_first_contact(const GridCommunicators& groups, FirstContact& contact, GpuUse use) {
  if (groups.world->size() > 1) contact.collectives(*groups.world);
  for (const Axis axis : collective_axes)
    if (groups[axis].size() > 1) contact.collectives(groups[axis]);
  if (groups.embedding) contact.collectives(*groups.embedding);
  Communicator& tp = groups[Axis::tensor];
  if (use == GpuUse::beside_peers && tp.size() > 1) contact.registered_collectives(tp);
  for (Communicator* channel : {groups.pp_forward.get(), groups.pp_backward.get()})
    if (channel->size() > 1) contact.transfers(*channel);
  contact.finish();
}

void connect_groups(GridCommunicators& group, const ProcessGrid& grid, const ncclUniqueId& id) {
  int ordinal = 0;
  cuda::check(cudaGetDevice(&ordinal), "asking for the GPU in use");
  NcclCommHandle world = connect_world(id, grid);
  const Builder builder(world, grid, group.log, ordinal);
  for (const Axis axis : collective_axes) group.set(axis, builder.group(axis));
  group.pp_forward = builder.group(Axis::pipeline);
  group.pp_backward = builder.group(Axis::pipeline);
  group.embedding = builder.embedding_group();
  group.world = builder.adopt(std::move(world));
}

std::unique_ptr<GridCommunicators> connect(const ProcessGrid& grid, ControlPlane& control,
                                           const ncclUniqueId& id, Device& device, GpuUse use) {
  auto group = std::make_unique<GridCommunicators>();
  std::unique_ptr<FirstContact> contact;
  try {
    control.activity().during(labels::control_connect, [&] {
      connect_groups(*group, grid, id);
      contact = std::make_unique<FirstContact>(device, grid.shape().world());
      make_first_contact(*group, *contact, use);
    });
  } catch (...) {
    // What is under way waits for ranks that may not come, and freeing memory would wait for it.
    constexpr double seconds = 2;
    if (!abort_all(group->all(), seconds)) {
      group.release();
      contact.release();
    }
    device.abandon();
    throw;
  }
  return group;
}

}  // namespace

std::unique_ptr<GridCommunicators> make_nccl_communicators(const ProcessGrid& grid, ControlPlane& control,
                                                           Device& device, GpuUse use) {
  if (grid.shape().world() == 1) return make_local_communicators(copy_gpu_tensor);
  fail_together(control, [&] {
    if (!cuda::nccl_at_least(2, 28))
      throw ConfigurationError(fmt::format(
          "`device` cuda: NCCL {} is too old for several ranks; put libnccl.so.2 of 2.28 or later on "
          "LD_LIBRARY_PATH",
          cuda::nccl_version()));
    if (use == GpuUse::shared) allow_shared_gpus();
  });
  // Registration by window alone: what else is registered, NCCL's abort reads when it is freed (to 2.30).
  setenv("NCCL_LOCAL_REGISTER", "0", /*overwrite=*/0);
  return connect(grid, control, agree_on_address(control), device, use);
}

}  // namespace llama3d
