// The model asks for parameters and gradients group by group, at each use: a store that frees them in between
// and brings them back elsewhere gives the same run, bit for bit.
#include <boost/test/unit_test.hpp>
#include <map>

#include "compute/kernels.hpp"
#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"
#include "support/test_device.hpp"
#include "train/test_run.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

constexpr std::int64_t global_batch = 8, sequence = 7;

/// Memory of a group that lives from its first acquire to its last release.
struct Copy {
  DeviceMemory memory{nullptr, [](void*) {}};
  Tensor tensor;
  int holds = 0;
};

/// Keeps nothing between uses: a group lies in memory of its own while it is held, full of NaN before it is
/// freed. Ends a step only with nothing held.
class PagingStore final : public ParameterStore {
 public:
  PagingStore(ParameterStore& resident, Device& device, Stream& stream)
      : resident_(resident), device_(device), stream_(stream) {}
  ~PagingStore() override {
    for (const auto* copies : {&parameters_, &gradients_})
      for (const auto& [group, copy] : *copies) BOOST_TEST(copy.holds == 0);
  }

  Tensor acquire(std::size_t group) override {
    return hold(parameters_[group], [&] { return resident_.acquire(group); });
  }
  void release(std::size_t group) override {
    if (Copy& copy = parameters_[group]; --copy.holds == 0) {
      free(copy);
      resident_.release(group);
    }
  }
  Tensor acquire_gradients(std::size_t group) override {
    return hold(gradients_[group], [&] { return homes_[group] = resident_.acquire_gradients(group); });
  }
  void release_gradients(std::size_t group, bool complete) override {
    Copy& copy = gradients_[group];
    if (--copy.holds > 0) {
      BOOST_TEST(!complete);
      return;
    }
    device_.kernels().copy(copy.tensor, homes_[group], stream_);
    free(copy);
    resident_.release_gradients(group, complete);
    completed += complete;
  }

  int allocations = 0, completed = 0;

 private:
  template <class Get>
  Tensor hold(Copy& copy, Get&& get) {
    if (copy.holds++ == 0) {
      const Tensor home = get();
      copy.memory = device_.allocate(home.bytes());
      copy.tensor = Tensor(copy.memory.get(), home.dtype(), home.shape());
      device_.kernels().copy(home, copy.tensor, stream_);
      ++allocations;
    }
    return copy.tensor;
  }
  void free(Copy& copy) {
    const std::vector<unsigned char> poison(copy.tensor.bytes(), 0xff);
    device_.upload(copy.tensor, poison.data(), stream_);
    stream_.synchronize();
    copy.memory.reset();
    copy.tensor = {};
  }

  ParameterStore& resident_;
  Device& device_;
  Stream& stream_;
  std::map<std::size_t, Copy> parameters_, gradients_;
  std::map<std::size_t, Tensor> homes_;
};

struct Case {
  GridShape grid;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int chunks = 1;
  Recompute recompute = Recompute::none;
  DType compute = DType::fp32;
  bool tied = false;
  const char* architecture = "llama";
};

RunShape shape_of(const Case& c) {
  RunShape shape;
  shape.model = small_model(c.tied, c.architecture);
  shape.grid = c.grid;
  shape.pipeline_schedule = c.schedule;
  shape.pipeline_chunks = c.chunks;
  shape.global_batch_size = global_batch;
  shape.seq_length = sequence;
  shape.recompute = c.recompute;
  shape.precision = &precision_of(c.compute);
  return shape;
}

struct Outcome {
  std::vector<double> losses, norms;
  GlobalTensors weights;
};

Outcome outcome_of(TestRun& run) {
  Outcome outcome;
  run.initialize(3);
  for (int step = 1; step <= 3; ++step) {
    const StepResult result = run.step(random_batch(global_batch, sequence, 131, 7), step, 1e-2);
    outcome.losses.push_back(result.loss);
    outcome.norms.push_back(result.gradient_norm);
  }
  outcome.losses.push_back(run.evaluate(random_batch(global_batch, sequence, 131, 8)).loss);
  outcome.weights = run.weights();
  return outcome;
}

void check_the_same_bits(const Case& c) {
  BOOST_TEST_CONTEXT(c.grid.to_string() << ", " << name_of(c.schedule) << ", recompute "
                                        << name_of(c.recompute) << (c.tied ? ", tied" : "")) {
    TestRun resident(shape_of(c), {});
    const Outcome expected = outcome_of(resident);
    PagingStore* store = nullptr;
    TestRun paging(shape_of(c), {}, [&](ParameterStore& from, Device& device, Stream& stream) {
      auto made = std::make_unique<PagingStore>(from, device, stream);
      store = made.get();
      return made;
    });
    const Outcome actual = outcome_of(paging);
    BOOST_TEST(actual.losses == expected.losses, boost::test_tools::per_element());
    BOOST_TEST(actual.norms == expected.norms, boost::test_tools::per_element());
    BOOST_REQUIRE(actual.weights.size() == expected.weights.size());
    for (const auto& [name, tensor] : expected.weights)
      BOOST_TEST((actual.weights.at(name).values == tensor.values), name);
    // Every micro-batch brings every group back, forward and backward.
    const int groups = static_cast<int>(paging.plan().table.groups().size());
    BOOST_TEST(store->allocations > 3 * 2 * groups * paging.plan().pipeline.micro_batches);
    BOOST_TEST(store->completed > 0);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_store_that_frees_groups_between_uses_gives_the_same_bits) {
  const int ranks = control().size();
  using enum Recompute;
  for (const auto recompute : {none, cheap, full}) {
    check_the_same_bits({.grid = {1, 1, ranks}, .recompute = recompute, .tied = true});
    if (ranks % 2 == 0) check_the_same_bits({.grid = {2, 1, ranks / 2}, .recompute = recompute});
  }
  check_the_same_bits({.grid = {1, 1, ranks}, .compute = DType::bf16});
  for (const char* architecture : {"qwen2", "qwen3"})
    check_the_same_bits({.grid = {ranks, 1, 1}, .recompute = cheap, .architecture = architecture});
  if (ranks % 2 == 0) {
    check_the_same_bits({.grid = {1, 2, ranks / 2}, .schedule = ScheduleKind::zero_bubble, .tied = true});
    check_the_same_bits({.grid = {1, 2, ranks / 2}, .schedule = ScheduleKind::interleaved, .chunks = 2});
  }
  if (ranks % 4 == 0)
    for (const auto recompute : {none, full})
      check_the_same_bits({.grid = {2, 2, ranks / 4},
                           .schedule = ScheduleKind::zero_bubble,
                           .recompute = recompute,
                           .compute = DType::bf16});
}
