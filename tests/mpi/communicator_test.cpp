// Every operation x type x size x group over MPI against a serial program, for every grid of the world's
// size.
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <functional>
#include <string>

#include "base/philox.hpp"
#include "comm/labels.hpp"
#include "mpi/group_data.hpp"
#include "mpi/mpi_communicator.hpp"
#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

constexpr DType all_types[] = {DType::fp32, DType::bf16, DType::fp64, DType::int32};
constexpr Label label = labels::world_totals;

std::unique_ptr<GridCommunicators> make_communicators(const ProcessGrid& grid) {
  const TestPlace& place = TestPlace::get(control().node_rank(), control().node_size());
  return gpu_required() ? connect_gpus(grid, control(), *place.gpu) : session().make_communicators(grid);
}

/// A communicator and the world ranks that it should consist of.
struct Group {
  std::string name;
  Communicator* communicator;
  std::vector<int> world_ranks;
};

std::vector<ProcessGrid> grids() {
  std::vector<ProcessGrid> all;
  const int world = control().size();
  for (int tp = 1; tp <= world; ++tp)
    for (int pp = 1; tp * pp <= world; ++pp)
      if (world % (tp * pp) == 0)
        all.push_back(ProcessGrid::derive(world, {.tp = tp, .pp = pp}, control().rank()));
  return all;
}

/// Those with several ranks along the context axis.
std::vector<ProcessGrid> grids_with_context() {
  std::vector<ProcessGrid> all;
  const int world = control().size(), rank = control().rank();
  if (world % 2 == 0) all.push_back(ProcessGrid::derive(world, {.cp = 2}, rank));
  if (world % 4 == 0) all.push_back(ProcessGrid::derive(world, {.tp = 2, .cp = 2}, rank));
  if (world % 8 == 0) all.push_back(ProcessGrid::derive(world, {.tp = 2, .pp = 2, .cp = 2}, rank));
  return all;
}

std::vector<int> everyone() {
  std::vector<int> ranks;
  for (int rank = 0; rank < control().size(); ++rank) ranks.push_back(rank);
  return ranks;
}

std::vector<Group> groups_of(GridCommunicators& set, const ProcessGrid& grid) {
  const std::vector<int> stages = grid.group(Axis::pipeline);
  std::vector<Group> groups = {{"world", set.world.get(), everyone()},
                               {"pp_forward", set.pp_forward.get(), stages},
                               {"pp_backward", set.pp_backward.get(), stages}};
  for (const Axis axis : collective_axes)
    groups.push_back({std::string(name_of(axis)), &set[axis], grid.group(axis)});
  if (set.embedding) groups.push_back({"embedding", set.embedding.get(), {stages.front(), stages.back()}});
  return groups;
}

HostTensor contributions(DType dtype, std::int64_t elements) {
  HostTensor tensor(dtype, elements);
  for (std::int64_t i = 0; i < elements; ++i) tensor.set(i, contribution(control().rank(), i));
  return tensor;
}

/// Elements that differ from the serial result, over all operations on `n` elements a rank.
std::int64_t wrong_elements(const Group& group, DType dtype, std::int64_t n) {
  Communicator& communicator = *group.communicator;
  Stream& stream = *TestPlace::get().stream;
  const int size = communicator.size(), rank = communicator.rank();
  const auto sum = [&](std::int64_t i) { return serial_sum(group.world_ranks, i); };
  const auto max = [&](std::int64_t i) { return serial_max(group.world_ranks, i); };
  const auto own_sum = [&](std::int64_t i) { return sum(rank * n + i); };
  const auto gathered = [&](std::int64_t i) {
    return contribution(group.world_ranks[static_cast<std::size_t>(i / n)], i % n);
  };
  std::int64_t wrong = 0;

  HostTensor reduced = contributions(dtype, n), largest = contributions(dtype, n);
  communicator.all_reduce(reduced.tensor(), ReduceOperation::sum, label, stream)->wait(stream);
  communicator.all_reduce(largest.tensor(), ReduceOperation::max, label, stream)->wait(stream);
  wrong += reduced.mismatches(sum) + largest.mismatches(max);

  HostTensor in = contributions(dtype, n), out(dtype, n * size), in_place(dtype, n * size);
  communicator.all_gather(in.tensor(), out.tensor(), label, stream)->wait(stream);
  for (std::int64_t i = 0; i < n; ++i) in_place.set(rank * n + i, contribution(control().rank(), i));
  const Tensor own = in_place.tensor().slice(rank * n, rank * n + n);
  communicator.all_gather(own, in_place.tensor(), label, stream)->wait(stream);
  wrong += out.mismatches(gathered) + in_place.mismatches(gathered);

  HostTensor whole = contributions(dtype, n * size), slice(dtype, n);
  communicator.reduce_scatter(whole.tensor(), slice.tensor(), label, stream)->wait(stream);
  wrong += slice.mismatches(own_sum);
  const auto untouched = [](std::int64_t i) { return contribution(control().rank(), i); };
  wrong += whole.mismatches(untouched);
  const Tensor own_slice = whole.tensor().slice(rank * n, rank * n + n);
  communicator.reduce_scatter(whole.tensor(), own_slice, label, stream)->wait(stream);
  wrong += whole.mismatches(rank * n, n, own_sum);

  for (int root = 0; root < size; ++root) {
    HostTensor tensor = contributions(dtype, n);
    communicator.broadcast(tensor.tensor(), root, label, stream)->wait(stream);
    const int source = group.world_ranks[static_cast<std::size_t>(root)];
    wrong += tensor.mismatches([&](std::int64_t i) { return contribution(source, i); });
  }

  if (size > 1) {
    const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    HostTensor from_previous(dtype, n), from_next(dtype, n);
    const Transfer ring[] = {{Transfer::Direction::send, in.tensor(), next},
                             {Transfer::Direction::send, in.tensor(), previous},
                             {Transfer::Direction::receive, from_previous.tensor(), previous},
                             {Transfer::Direction::receive, from_next.tensor(), next}};
    communicator.exchange(ring, label, stream)->wait(stream);
    const int before = group.world_ranks[static_cast<std::size_t>(previous)];
    const int after = group.world_ranks[static_cast<std::size_t>(next)];
    wrong += from_previous.mismatches([&](std::int64_t i) { return contribution(before, i); });
    wrong += from_next.mismatches([&](std::int64_t i) { return contribution(after, i); });
  }
  return wrong;
}

/// A value of (-1, 1) that is not exact in any short type's sums.
double random_value(int rank, std::int64_t i) {
  const auto bits = philox4x32(philox_key(7, "communicator"), static_cast<std::uint64_t>(i),
                               static_cast<std::uint64_t>(rank))[0];
  return static_cast<double>(bits) / 2147483648.0 - 1.0;
}

HostTensor random_values(DType dtype, int rank, std::int64_t elements) {
  HostTensor tensor(dtype, elements);
  for (std::int64_t i = 0; i < elements; ++i) tensor.set(i, random_value(rank, i));
  return tensor;
}

/// Elements of `sums` further from the exact sum over all ranks than the type allows. Each of the n - 1
/// additions errs by at most half an ulp of a partial sum, which is at most sum |x|: (n - 1) u sum |x| to
/// first order, u = 2^-8 for bf16 and 2^-24 for fp32; 1 % is left for the higher orders, which are below n u
/// = 3 %  of it for bf16 and 8 ranks and never all of one sign.
std::int64_t too_far(const HostTensor& sums, DType dtype, int ranks, std::int64_t first) {
  const double unit = dtype == DType::bf16 ? std::ldexp(1.0, -8) : std::ldexp(1.0, -24);
  std::vector<HostTensor> inputs;
  for (int rank = 0; rank < ranks; ++rank)
    inputs.push_back(random_values(dtype, rank, first + sums.elements()));
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < sums.elements(); ++i) {
    double exact = 0, magnitude = 0;
    for (const HostTensor& input : inputs) {
      exact += input.get(first + i);
      magnitude += std::abs(input.get(first + i));
    }
    wrong += !(std::abs(sums.get(i) - exact) <= 1.01 * (ranks - 1) * unit * magnitude);
  }
  return wrong;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_operation_on_every_group_is_the_serial_result) {
  auto all = grids();
  for (const ProcessGrid& grid : grids_with_context()) all.push_back(grid);
  for (const ProcessGrid& grid : all) {
    const auto set = make_communicators(grid);
    const bool at_an_end = grid.size(Axis::pipeline) > 1 && (grid.first_stage() || grid.last_stage());
    BOOST_TEST((set->embedding != nullptr) == at_an_end);
    for (const Group& group : groups_of(*set, grid)) {
      BOOST_REQUIRE_EQUAL(group.communicator->size(), static_cast<int>(group.world_ranks.size()));
      BOOST_REQUIRE_EQUAL(group.world_ranks[static_cast<std::size_t>(group.communicator->rank())],
                          control().rank());
      // Ranks that share a GPU take turns, tens of milliseconds an operation.
      const bool every_size = !gpus_shared(control().node_size()) || &grid == &all.front();
      for (const DType dtype : all_types)
        for (const std::int64_t n : {1001, 0, 1, 7})
          if (every_size || (n == 1001 && dtype == DType::bf16))
            BOOST_TEST(wrong_elements(group, dtype, n) == 0,
                       grid.shape().to_string() << " " << group.name << " " << name_of(dtype) << " " << n);
    }
  }
}

BOOST_AUTO_TEST_CASE(large_tensors_are_the_serial_result) {
  const auto set = make_communicators(grids().front());
  const Group world{"world", set->world.get(), everyone()};
  for (const DType dtype : all_types) BOOST_TEST(wrong_elements(world, dtype, 50021) == 0, name_of(dtype));
}

// NCCL maps memory that it was asked for, of other GPUs alone.
BOOST_AUTO_TEST_CASE(operations_in_registered_memory_are_the_serial_result,
                     *needs("LLAMA3D_TEST_REGISTER=1 and a GPU a rank, or CPUs",
                            [] { return !gpu_required() || memory_registered(control().node_size()); })) {
  constexpr std::int64_t n = 50024;
  const int ranks = control().size(), rank = control().rank();
  const ProcessGrid grid = ProcessGrid::derive(ranks, {.tp = ranks}, rank);
  const auto sum = [&](std::int64_t i) { return serial_sum(everyone(), i); };
  for (const DType dtype : all_types) {
    // One block as an engine's: what is gathered, in place; what is scattered; where a part of it goes.
    HostTensor block = contributions(dtype, n * (2 * ranks + 1));
    const std::int64_t whole_at = n * ranks, part_at = 2 * n * ranks;
    const auto set = make_communicators(grid);
    Communicator& tp = (*set)[Axis::tensor];
    Stream& stream = *TestPlace::get().stream;
    const Tensor memory = block.tensor(), gathered = memory.slice(0, whole_at),
                 whole = memory.slice(whole_at, part_at), part = memory.slice(part_at, part_at + n);
    tp.register_memory(memory);
    tp.all_gather(gathered.slice(rank * n, rank * n + n), gathered, label, stream)->wait(stream);
    tp.reduce_scatter(whole, part, label, stream)->wait(stream);
    tp.all_reduce(whole, ReduceOperation::max, label, stream)->wait(stream);
    const auto of_source = [&](std::int64_t i) { return contribution(static_cast<int>(i / n), i); };
    const auto largest = [&](std::int64_t i) { return serial_max(everyone(), whole_at + i); };
    const auto own_sum = [&](std::int64_t i) { return sum(whole_at + rank * n + i); };
    BOOST_TEST(block.mismatches(0, whole_at, of_source) == 0);
    BOOST_TEST(block.mismatches(whole_at, whole_at, largest) == 0);
    BOOST_TEST(block.mismatches(part_at, n, own_sum) == 0);
  }
}

BOOST_AUTO_TEST_CASE(operations_in_pieces_are_the_serial_result,
                     *needs("MPI's communicator, not NCCL's", [] { return !gpu_required(); })) {
  // Counts above MPI's limit need tens of gigabytes; a small limit takes the same path.
  for (const std::int64_t piece : {1, 5, 64}) {
    CommunicationLog log;
    MpiCommunicator communicator(duplicate_comm(MPI_COMM_WORLD), log, piece);
    const Group world{"pieces", &communicator, everyone()};
    for (const DType dtype : all_types)
      for (const std::int64_t n : {0, 1, 7, 129})
        BOOST_TEST(wrong_elements(world, dtype, n) == 0, name_of(dtype) << " " << n << " by " << piece);
  }
}

BOOST_AUTO_TEST_CASE(the_world_wide_check_sees_a_wrong_group) {
  // Negative control: the same data against the ranks of a group that is not the one that communicated.
  const auto set = make_communicators(grids().front());
  std::vector<int> others = everyone();
  for (int& rank : others) ++rank;
  BOOST_TEST(wrong_elements({"wrong", set->world.get(), others}, DType::fp32, 101) > 0);
}

BOOST_AUTO_TEST_CASE(sums_round_as_their_type_does_and_the_same_call_gives_the_same_bits) {
  const auto set = make_communicators(grids().front());
  Communicator& world = *set->world;
  Stream& stream = *TestPlace::get().stream;
  const int ranks = world.size(), rank = world.rank();
  for (const DType dtype : {DType::fp32, DType::bf16}) {
    for (const std::int64_t n : {1, 1001, 30011}) {
      BOOST_TEST_CONTEXT(name_of(dtype) << " " << n) {
        HostTensor first = random_values(dtype, rank, n), second = first;
        world.all_reduce(first.tensor(), ReduceOperation::sum, label, stream)->wait(stream);
        world.all_reduce(second.tensor(), ReduceOperation::sum, label, stream)->wait(stream);
        BOOST_TEST(first.same_bits(second));
        BOOST_TEST(too_far(first, dtype, ranks, 0) == 0);
        const std::string bytes(first.bytes().begin(), first.bytes().end());
        for (const std::string& other : control().all_gather(bytes)) BOOST_TEST((other == bytes));

        HostTensor whole = random_values(dtype, rank, n * ranks), slice(dtype, n), again(dtype, n);
        world.reduce_scatter(whole.tensor(), slice.tensor(), label, stream)->wait(stream);
        world.reduce_scatter(whole.tensor(), again.tensor(), label, stream)->wait(stream);
        BOOST_TEST(slice.same_bits(again));
        BOOST_TEST(too_far(slice, dtype, ranks, rank * n) == 0);
        // In place takes the same way through MPI.
        const Tensor own = whole.tensor().slice(rank * n, rank * n + n);
        world.reduce_scatter(whole.tensor(), own, label, stream)->wait(stream);
        BOOST_TEST(whole.mismatches(rank * n, n, [&](std::int64_t i) { return slice.get(i); }) == 0);

        slice.set(n / 2, slice.get(n / 2) + 0.5);
        if (ranks > 1) BOOST_TEST(too_far(slice, dtype, ranks, rank * n) == 1);  // negative control
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(bf16_sums_round_to_nearest_even_and_keep_nan,
                     *needs("several ranks", [] { return control().size() > 1; })) {
  const auto set = make_communicators(grids().front());
  Communicator& world = *set->world;
  Stream& stream = *TestPlace::get().stream;
  // Rank 0 has the first row, rank 1 the second, the others zeros. Above 1, bf16 numbers are 2^-7 apart.
  const double tie = std::ldexp(1.0, -8), ulp = std::ldexp(1.0, -7);
  const double rows[2][5] = {{1, 1 + ulp, 1, -1, NAN}, {tie, tie, 1.5 * tie, -tie, 1}};
  const double sums[4] = {1, 1 + 2 * ulp, 1 + ulp, -1};
  HostTensor tensor(DType::bf16, 5);
  for (int i = 0; i < 5; ++i) tensor.set(i, world.rank() < 2 ? rows[world.rank()][i] : 0);
  world.all_reduce(tensor.tensor(), ReduceOperation::sum, label, stream)->wait(stream);
  for (int i = 0; i < 4; ++i) BOOST_TEST(tensor.get(i) == sums[i]);
  BOOST_TEST(std::isnan(tensor.get(4)));
}

BOOST_AUTO_TEST_CASE(operations_outstanding_at_once_do_not_mix) {
  const ProcessGrid grid = grids()[grids().size() / 2];
  const auto set = make_communicators(grid);
  Stream& stream = *TestPlace::get().stream;
  const auto groups = groups_of(*set, grid);
  static constexpr std::int64_t n = 501;
  std::vector<std::unique_ptr<HostTensor>> tensors;
  std::vector<WorkHandle> work;
  std::vector<std::function<std::int64_t()>> checks;
  const auto start = [&](const Group& group, int salt) {
    Communicator& communicator = *group.communicator;
    const std::int64_t offset = 1000 * salt;
    const auto make = [&](std::int64_t elements) -> HostTensor& {
      HostTensor& tensor = *tensors.emplace_back(std::make_unique<HostTensor>(DType::bf16, elements));
      for (std::int64_t i = 0; i < elements; ++i) tensor.set(i, contribution(control().rank(), i + offset));
      return tensor;
    };
    HostTensor& reduced = make(n);
    HostTensor& whole = make(n * communicator.size());
    work.push_back(communicator.all_reduce(reduced.tensor(), ReduceOperation::sum, label, stream));
    const std::int64_t own = communicator.rank() * n;
    work.push_back(
        communicator.reduce_scatter(whole.tensor(), whole.tensor().slice(own, own + n), label, stream));
    checks.push_back([&reduced, group, offset] {
      return reduced.mismatches([&](std::int64_t i) { return serial_sum(group.world_ranks, i + offset); });
    });
    checks.push_back([&whole, group, offset, own] {
      return whole.mismatches(
          own, n, [&](std::int64_t i) { return serial_sum(group.world_ranks, own + i + offset); });
    });
  };
  for (int round = 0; round < 3; ++round)
    for (std::size_t g = 0; g < groups.size(); ++g) start(groups[g], 10 * round + static_cast<int>(g));
  while (!work.empty()) {
    work.back()->wait(stream);
    work.pop_back();
  }
  for (const auto& check : checks) BOOST_TEST(check() == 0);
}

BOOST_AUTO_TEST_CASE(messages_of_a_pair_keep_their_order_in_each_channel) {
  const int world = control().size();
  const ProcessGrid grid = ProcessGrid::derive(world, {.pp = world}, control().rank());
  const auto set = make_communicators(grid);
  Stream& stream = *TestPlace::get().stream;
  const int rank = control().rank();
  constexpr int messages = 20;
  std::vector<HostTensor> down, up, arrived;
  for (int m = 0; m < messages; ++m) {
    for (auto* list : {&down, &up, &arrived}) list->emplace_back(DType::fp32, 1 + 100 * m);
    for (std::int64_t i = 0; i < down.back().elements(); ++i) {
      down.back().set(i, rank + 10 * m);
      up.back().set(i, -rank - 10 * m);
    }
  }
  std::int64_t wrong = 0;
  const auto exchange = [&](Communicator& channel, HostTensor& tensor, Transfer::Direction direction,
                            int peer) {
    const Transfer transfer{direction, tensor.tensor(), peer};
    return channel.exchange({&transfer, 1}, labels::pp_activation, stream);
  };
  // Two stages, the upper one at an even or an odd place. Both send all they have before they receive: the
  // channels must be independent, since NCCL holds up what is queued behind a send that nobody receives.
  for (const int first : {0, 1}) {
    const bool upper = (rank - first) % 2 == 0;
    const int peer = upper ? rank + 1 : rank - 1;
    if (rank < first || peer < first || peer >= world) continue;
    Communicator &out = upper ? *set->pp_forward : *set->pp_backward,
                 &in = upper ? *set->pp_backward : *set->pp_forward;
    std::vector<WorkHandle> sent;
    for (HostTensor& tensor : upper ? down : up)
      sent.push_back(exchange(out, tensor, Transfer::Direction::send, peer));
    for (int m = 0; m < messages; ++m) {
      HostTensor& tensor = arrived[static_cast<std::size_t>(m)];
      exchange(in, tensor, Transfer::Direction::receive, peer)->wait(stream);
      wrong += tensor.mismatches([&](std::int64_t) { return upper ? -peer - 10 * m : peer + 10 * m; });
    }
    for (const auto& handle : sent) handle->wait(stream);
  }
  BOOST_TEST(wrong == 0);
  const int neighbours = (rank > 0) + (rank + 1 < world);
  BOOST_TEST(set->log.record(labels::pp_activation).calls == 2 * messages * neighbours);
}

BOOST_AUTO_TEST_CASE(operations_wait_for_the_stream_and_are_counted) {
  const auto set = make_communicators(grids().front());
  Stream& stream = *TestPlace::get().stream;
  const auto* host = dynamic_cast<ImmediateStream*>(&stream);
  const int synchronizations = host ? host->synchronizations : 0;
  HostTensor tensor = contributions(DType::fp64, 100);
  set->world->all_reduce(tensor.tensor(), ReduceOperation::sum, labels::tp_loss, stream)->wait(stream);
  const int ranks = control().size();
  if (host && ranks > 1) BOOST_TEST(host->synchronizations == synchronizations + 1);
  BOOST_TEST(set->log.record(labels::tp_loss).calls == 1);
  BOOST_TEST(set->log.record(labels::tp_loss).bytes == 2 * (ranks - 1) * 800 / ranks);
}
