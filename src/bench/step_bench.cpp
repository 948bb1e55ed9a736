
#include "base/philox.hpp"
#include "bench/bench.hpp"
#include "train/engine.hpp"

namespace llama3d {
namespace {

/// A micro-batch of random tokens, one document a sequence.
BatchRows random_rows(const RankPlan& plan, std::uint64_t key) {
  const std::int64_t sequence = plan.shape.seq_length, tokens = plan.shape.micro_batch_size * sequence;
  const auto vocabulary = static_cast<std::uint32_t>(plan.shape.model.vocabulary);
  BatchRows rows;
  for (std::int64_t i = 0; i < plan.layout.shape.rows; ++i) {
    const PhiloxBlock bits = philox4x32(key, static_cast<std::uint64_t>(i));
    const std::int64_t begin = i / sequence * sequence;
    const bool real = i < tokens;
    rows.ids.push_back(static_cast<std::int32_t>(bits[0] % vocabulary));
    rows.targets.push_back(real ? static_cast<std::int32_t>(bits[1] % vocabulary) : -1);
    rows.start.push_back(static_cast<std::int32_t>(real ? begin : i));
    rows.end.push_back(static_cast<std::int32_t>(real ? begin + sequence : i + 1));
    rows.position.push_back(static_cast<std::int32_t>(real ? i - begin : 0));
  }
  return rows;
}

}  // namespace

StepBench bench_steps(const RunShape& run, Runtime& runtime, int warmup, int steps) {
  RankPlan plan = make_rank_plan(run, runtime.control.rank(), runtime.device.kernels());
  StepBench result;
  auto communicators = runtime.make_communicators(plan.grid);
  result.planned_bytes = plan.memory.total() + DeviceCapacity::of(runtime.device).reserved;
  Engine engine(std::move(plan), {}, runtime, std::move(communicators));
  engine.state().initialize(1, run.model.initializer_range);
  engine.optimizer().gather_parameters();
  std::vector<BatchRows> batch;
  for (int m = 0; m < engine.plan().pipeline.micro_batches; ++m)
    batch.push_back(
        random_rows(engine.plan(), static_cast<std::uint64_t>(m * run.grid.size(Axis::data)) +
                                       static_cast<std::uint64_t>(engine.plan().grid.rank(Axis::data))));
  const auto finish_step = [&](int step) {
    const StepReport report = engine.take_report();
    if (step <= warmup) return;
    result.step_seconds.push_back(report.step_seconds);
    for (const auto& [label, record] : report.communication) result.communication[label] += record;
  };
  // As the trainer does: a step is queued before the last one is waited for.
  for (int step = 1; step <= warmup + steps; ++step) {
    engine.queue_step(batch, step, 1e-4);
    if (step > 1) finish_step(step - 1);
  }
  finish_step(warmup + steps);
  result.used_bytes = runtime.device.memory_in_use();
  result.overlap = engine.overlap();
  return result;
}

}  // namespace llama3d
