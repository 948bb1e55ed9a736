#include "train/engine.hpp"

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

/// Seconds of communication so far, by group of ranks.
struct CommunicationSeconds {
  explicit CommunicationSeconds(const CommunicationLog& log)
      : tp(seconds_in(log, "tp")),
        pp(seconds_in(log, "pp")),
        dp(seconds_in(log, "dp") + seconds_in(log, "world")) {}
  double all() const { return tp + pp + dp; }
  double tp, pp, dp;
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
  for (StepEvents& events : events_)
    for (auto* event : {&events.begin, &events.gradients, &events.end})
      *event = runtime.device.create_event();
}

void Engine::queue_step(std::span<const BatchRows> micro_batches, std::int64_t step, double learning_rate) {
  LLAMA3D_EXPECT(std::ssize(micro_batches) == plan_.pipeline.micro_batches,
                 "{} micro-batches in a step of {}", micro_batches.size(), plan_.pipeline.micro_batches);
  LLAMA3D_EXPECT(under_way_.size() < 2, "step {} queued on top of two others", step);
  const StepEvents& events = events_of(step);
  const CommunicationSeconds before(communicators_->log);
  stream_->record(*events.begin);
  optimizer_->begin_step();
  executor_->train(plan_.schedule, views(micro_batches),
                   {.needed = [this](auto kind, auto layer) { optimizer_->prepare(kind, layer); },
                    .ready = [this](auto kind, auto layer) { optimizer_->gradients_ready(kind, layer); }});
  stream_->record(*events.gradients);
  const CommunicationSeconds between(communicators_->log);
  optimizer_->finish_step(step, learning_rate, *events.end);
  const CommunicationSeconds after(communicators_->log);
  under_way_.push_back({step,
                        !under_way_.empty(),
                        {.compute = between.all() - before.all(),
                         .tp = after.tp - before.tp,
                         .pp = after.pp - before.pp,
                         .dp = after.dp - before.dp,
                         .optimizer = after.all() - between.all()}});
}

StepReport Engine::take_report() {
  const auto [step, follows, communication] = under_way_.front();
  under_way_.pop_front();
  const StepEvents& events = events_of(step);
  events.end->synchronize();
  StepReport report{optimizer_->result(step), communication, 0};
  const Device& device = runtime_->device;
  report.seconds.compute = device.elapsed_seconds(*events.begin, *events.gradients) - communication.compute;
  report.seconds.optimizer = device.elapsed_seconds(*events.gradients, *events.end) - communication.optimizer;
  report.step_seconds =
      device.elapsed_seconds(follows ? *events_of(step - 1).end : *events.begin, *events.end);
  return report;
}

Evaluation Engine::evaluate(std::span<const BatchRows> micro_batches) {
  LLAMA3D_EXPECT(under_way_.empty(), "evaluation beside {} steps under way", under_way_.size());
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
