#include "train/engine.hpp"

#include <chrono>
#include <string_view>

#include "compute/kernels.hpp"
#include "mpi/labels.hpp"

namespace llama3d {
namespace {

std::vector<MicroBatchRows> views(std::span<const BatchRows> batches) {
  std::vector<MicroBatchRows> rows;
  for (const BatchRows& b : batches) rows.push_back({b.ids, b.targets, b.start, b.end, b.position});
  return rows;
}

/// Seconds spent in the labels of one kind so far: "tp", "pp", "dp".
double seconds_in(const CommunicationLog& log, std::string_view kind) {
  double seconds = 0;
  for (const auto& [label, record] : log.records())
    if (label.name.starts_with(kind)) seconds += record.seconds;
  return seconds;
}

/// Reads a clock and the communication log at the ends of a phase.
class PhaseClock {
 public:
  explicit PhaseClock(const CommunicationLog& log) : log_(log) {}
  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  double tp() const { return seconds_in(log_, "tp") - tp_; }
  double pp() const { return seconds_in(log_, "pp") - pp_; }
  double dp() const { return seconds_in(log_, "dp") + seconds_in(log_, "world") - dp_; }

 private:
  const CommunicationLog& log_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double tp_ = seconds_in(log_, "tp"), pp_ = seconds_in(log_, "pp");
  double dp_ = seconds_in(log_, "dp") + seconds_in(log_, "world");
};

}  // namespace

Engine::Engine(RankPlan plan, const OptimizerOptions& optimizer, Runtime& runtime)
    : plan_(std::move(plan)),
      runtime_(&runtime),
      communicators_(runtime.make_communicators(plan_.grid)),
      stream_(runtime.device.create_stream(StreamPriority::normal)),
      memory_(allocate(plan_, runtime.device)),
      host_totals_(runtime.device.allocate_host(2 * sizeof(double))) {
  const ModelStateMemory& state = memory_.state;
  stage_ = std::make_unique<Stage>(plan_.shape.model, plan_.layout, plan_.table, runtime.device, *stream_,
                                   *communicators_->tp, memory_.stage, state.parameters, state.gradients,
                                   state.loss_totals());
  executor_ = std::make_unique<PipelineExecutor>(plan_.pipeline, plan_.grid.coordinate().pp, *stage_,
                                                 *communicators_->pp_forward, *communicators_->pp_backward,
                                                 *stream_, memory_.boundaries);
  optimizer_ = std::make_unique<DistributedOptimizer>(plan_.table, plan_.grid, optimizer, state,
                                                      runtime.device, *stream_, *communicators_);
}

StepResult Engine::train_step(std::span<const BatchRows> micro_batches, std::int64_t step,
                              double learning_rate) {
  LLAMA3D_EXPECT(std::ssize(micro_batches) == plan_.pipeline.micro_batches,
                 "{} micro-batches in a step of {}", micro_batches.size(), plan_.pipeline.micro_batches);
  optimizer_->begin_step();
  const PhaseClock pipeline(communicators_->log);
  executor_->train(plan_.schedule, views(micro_batches),
                   [this](GroupKind kind, std::int64_t layer) { optimizer_->gradients_ready(kind, layer); });
  seconds_ = {.tp = pipeline.tp(), .pp = pipeline.pp(), .dp = pipeline.dp()};
  seconds_.compute = pipeline.elapsed() - seconds_.tp - seconds_.pp - seconds_.dp;

  const PhaseClock update(communicators_->log);
  const StepResult result = optimizer_->finish_step(step, learning_rate);
  seconds_.optimizer = update.elapsed() - update.tp() - update.pp() - update.dp();
  seconds_.tp += update.tp();
  seconds_.pp += update.pp();
  seconds_.dp += update.dp();
  return result;
}

Evaluation Engine::evaluate(std::span<const BatchRows> micro_batches) {
  const Tensor totals = memory_.state.loss_totals();
  Kernels& kernels = runtime_->device.kernels();
  kernels.fill_zero(totals, *stream_);
  PipelineShape shape = plan_.pipeline;
  shape.micro_batches = static_cast<int>(micro_batches.size());
  executor_->evaluate(make_forward_schedule(shape, plan_.grid.coordinate().pp), views(micro_batches));
  // Every tp rank of the last stage knows the same losses.
  if (plan_.grid.coordinate().tp != 0) kernels.fill_zero(totals, *stream_);
  communicators_->world->all_reduce(totals, ReduceOperation::sum, labels::world_totals, *stream_)
      ->wait(*stream_);
  runtime_->device.download(host_totals_.get(), totals, *stream_);
  stream_->synchronize();
  const auto* sums = static_cast<const double*>(host_totals_.get());
  return {sums[0] / sums[1], sums[1]};
}

}  // namespace llama3d
