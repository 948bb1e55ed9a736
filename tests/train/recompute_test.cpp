// What must not change a single bit: recomputation, an offloaded optimizer, and running the same grid twice.
// And what a bad step does.
#include <boost/test/unit_test.hpp>
#include <limits>

#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"
#include "support/test_device.hpp"
#include "train/test_run.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

RunShape shape_of(Recompute recompute, ScheduleKind schedule, DType compute,
                  const char* architecture = "llama") {
  RunShape shape;
  shape.model = small_model(false, architecture);
  const int ranks = control().size();
  shape.grid = ranks == 4 ? GridShape{2, 2, 1} : GridShape{1, 1, ranks};
  shape.pipeline_schedule = schedule;
  shape.micro_batch_size = 2;
  shape.global_batch_size = 8;
  shape.seq_length = 9;
  shape.precision = &precision_of(compute);
  shape.recompute = recompute;
  return shape;
}

struct Outcome {
  std::vector<double> losses;
  GlobalTensors weights;
};

/// Three steps, of which so many may be queued before the first is known to have ended.
Outcome run_steps(const RunShape& shape, std::size_t under_way = 2) {
  TestRun run(shape, {});
  run.initialize(3);
  Engine& engine = run.engine();
  Outcome outcome;
  const auto take = [&] { outcome.losses.push_back(engine.take_report().result.loss); };
  for (int step = 1; step <= 3; ++step) {
    if (engine.steps_under_way() == under_way) take();
    engine.queue_step(run.micro_batches(random_batch(8, 9, shape.model.vocabulary, 50 + step)), step, 1e-3);
  }
  while (engine.steps_under_way() > 0) take();
  outcome.weights = run.weights();
  return outcome;
}

std::size_t planned(const RunShape& shape, const std::string& category) {
  TestRun run(shape, {});
  for (const auto& entry : run.plan().memory.entries)
    if (entry.category == category) return entry.bytes;
  return 0;
}

bool same_bits(const Outcome& a, const Outcome& b) {
  bool same = a.losses == b.losses && a.weights.size() == b.weights.size();
  for (const auto& [name, tensor] : a.weights) same = same && b.weights.at(name).values == tensor.values;
  return same;
}

}  // namespace

BOOST_AUTO_TEST_CASE(recomputation_gives_the_same_bits) {
  for (const DType compute : {DType::fp32, DType::bf16})
    for (const ScheduleKind schedule : {ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble})
      BOOST_TEST_CONTEXT(name_of(compute) << " " << name_of(schedule)) {
        const Outcome none = run_steps(shape_of(Recompute::none, schedule, compute));
        BOOST_CHECK(same_bits(run_steps(shape_of(Recompute::cheap, schedule, compute)), none));
        BOOST_CHECK(same_bits(run_steps(shape_of(Recompute::full, schedule, compute)), none));
      }
}

BOOST_AUTO_TEST_CASE(recomputation_gives_the_same_bits_with_biases_and_norms_of_heads) {
  for (const char* architecture : {"qwen2", "qwen3"})
    for (const ScheduleKind schedule : {ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble})
      BOOST_TEST_CONTEXT(architecture << " " << name_of(schedule)) {
        const Outcome none = run_steps(shape_of(Recompute::none, schedule, DType::bf16, architecture));
        for (const Recompute recompute : {Recompute::cheap, Recompute::full})
          BOOST_CHECK(same_bits(run_steps(shape_of(recompute, schedule, DType::bf16, architecture)), none));
      }
}

BOOST_AUTO_TEST_CASE(steps_queued_ahead_give_the_same_bits) {
  // What one step leaves to the next, such as parameters on their way from other ranks, it must wait for.
  const int ranks = control().size();
  std::vector<GridShape> grids = {{1, 1, ranks}};
  if (ranks % 2 == 0) grids.push_back({1, 2, ranks / 2});
  if (ranks % 4 == 0) grids.push_back({2, 1, ranks / 2});
  for (const GridShape& grid : grids)
    for (const bool offload : {false, true}) {
      RunShape shape = shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::bf16);
      shape.grid = grid;
      shape.offload_optimizer = offload;
      BOOST_TEST_CONTEXT(grid.to_string() << (offload ? " offloaded" : ""))
      BOOST_CHECK(same_bits(run_steps(shape, 2), run_steps(shape, 1)));
    }
}

BOOST_AUTO_TEST_CASE(the_same_run_twice_gives_the_same_bits) {
  const RunShape shape = shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::fp32);
  const Outcome first = run_steps(shape);
  BOOST_CHECK(same_bits(run_steps(shape), first));
  Outcome changed = first;
  changed.weights.begin()->second.values.back() += 1e-6f;
  BOOST_CHECK(!same_bits(changed, first));
}

BOOST_AUTO_TEST_CASE(an_offloaded_optimizer_gives_the_same_bits) {
  const StateOptions all_fp32, all_bf16{.gradient = DType::bf16, .moments = DType::bf16, .master = false};
  for (const DType compute : {DType::fp32, DType::bf16})
    for (const StateOptions& states : {all_fp32, all_bf16})
      for (const std::int64_t chunk : {192, 1 << 20}) {
        RunShape shape = shape_of(Recompute::none, ScheduleKind::one_f_one_b, compute);
        shape.gradient_dtype = states.gradient;
        shape.optimizer_dtype = states.moments;
        shape.master_weights = states.master;
        const Outcome resident = run_steps(shape);
        shape.offload_optimizer = true;
        shape.offload_chunk = chunk;
        BOOST_TEST_CONTEXT(name_of(compute) << " moments " << name_of(states.moments) << " chunk " << chunk)
        BOOST_CHECK(same_bits(run_steps(shape), resident));
      }
}

BOOST_AUTO_TEST_CASE(an_offloaded_optimizer_saves_memory) {
  RunShape shape = shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::bf16);
  shape.offload_chunk = 192;
  const std::size_t resident = planned(shape, "optimizer");
  shape.offload_optimizer = true;
  BOOST_CHECK_LT(planned(shape, "optimizer"), resident);
  TestRun run(shape, {});
  BOOST_CHECK_GT(run.plan().memory.host, resident - planned(shape, "optimizer"));
}

BOOST_AUTO_TEST_CASE(recomputation_saves_memory) {
  const auto activations = [](Recompute recompute) {
    return planned(shape_of(recompute, ScheduleKind::one_f_one_b, DType::fp32), "activations");
  };
  const auto none = activations(Recompute::none), cheap = activations(Recompute::cheap),
             full = activations(Recompute::full);
  BOOST_CHECK_LT(cheap, none);
  BOOST_CHECK_LT(full, cheap);
}

BOOST_AUTO_TEST_CASE(bf16_follows_fp32) {
  const Outcome fp32 = run_steps(shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::fp32));
  const Outcome bf16 = run_steps(shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::bf16));
  for (std::size_t i = 0; i < fp32.losses.size(); ++i) {
    // 8 bits of mantissa through 8 layers, averaged over dozens of tokens: well under two roundings.
    BOOST_CHECK_LE(std::abs(bf16.losses[i] - fp32.losses[i]), 2 * 0x1p-8 * fp32.losses[i]);
    BOOST_CHECK_NE(bf16.losses[i], fp32.losses[i]);
  }
}

BOOST_AUTO_TEST_CASE(a_step_that_is_not_finite_changes_nothing) {
  TestRun run(shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::fp32), {});
  run.initialize(3);
  GlobalTensors poisoned = run.weights();
  poisoned.at("model.norm.weight").values.front() = std::numeric_limits<float>::infinity();
  run.set_weights(poisoned);
  const GlobalTensors before = run.weights();
  const StepResult result = run.step(random_batch(8, 9, 131, 1), 1, 1e-3);
  BOOST_CHECK(result.skipped);
  for (const auto& [name, tensor] : run.weights()) BOOST_CHECK(tensor.values == before.at(name).values);
}

// A host counts only what it hands out, which is the plan; a shared GPU's memory is in use by other ranks
// too.
BOOST_AUTO_TEST_CASE(memory_in_use_is_the_plan, *needs("a GPU a rank", [] {
                       return gpu_required() && !gpus_shared(control().node_size());
                     })) {
  TestRun run(shape_of(Recompute::none, ScheduleKind::one_f_one_b, DType::fp32), {});
  const Device& device = run.engine().device();
  const std::size_t planned = run.plan().memory.total() + run.capacity().reserved;
  // A GPU's driver loads each kernel at its first call, and gives memory by pages.
  const double tolerance = 0.02 * static_cast<double>(planned);
  const auto check = [&] {
    const double difference = static_cast<double>(device.memory_in_use()) - static_cast<double>(planned);
    BOOST_TEST_CONTEXT("in use " << difference << " bytes beyond the plan's " << planned)
    BOOST_CHECK_LE(std::abs(difference), tolerance);
  };
  check();
  run.initialize(1);
  run.step(random_batch(8, 9, 131, 1), 1, 1e-3);
  check();
}
