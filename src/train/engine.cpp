#include "train/engine.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/numbers.hpp"
#include "comm/labels.hpp"
#include "compute/kernels.hpp"

namespace llama3d {
namespace {

std::vector<MicroBatchRows> views(std::span<const BatchRows> batches) {
  std::vector<MicroBatchRows> rows;
  for (const BatchRows& b : batches) rows.push_back({b.ids, b.targets, b.start, b.end, b.position});
  return rows;
}

/// Seconds that computing stood still for the labels of one kind: "tp", "pp", "dp"; "" is all.
double exposed_seconds(const LabelRecords& records, std::string_view kind) {
  double seconds = 0;
  for (const auto& [label, record] : records)
    if (label.name.starts_with(kind)) seconds += record.exposed_seconds;
  return seconds;
}

/// The communicator that a label travels by: transfers have a channel each way.
std::string lane_of(Label label) {
  if (label == labels::pp_activation || label == labels::pp_gradient) return std::string(label.name);
  return std::string(label.name.substr(0, label.name.find('.')));
}

LabelRecords sum_of(LabelRecords records, const LabelRecords& others) {
  for (const auto& [label, record] : others) records[label] += record;
  return records;
}

}  // namespace

Engine::Engine(RankPlan plan, const OptimizerOptions& optimizer, Runtime& runtime,
               std::unique_ptr<GridCommunicators> communicators, const MakeStore& make_store)
    : plan_(std::move(plan)),
      runtime_(&runtime),
      memory_(allocate(plan_, runtime.device)),
      communicators_(std::move(communicators)),
      stream_(runtime.device.create_stream(StreamPriority::normal)),
      host_totals_(runtime.device.allocate_host(2 * sizeof(double))),
      watch_(runtime.watchdog, communicators_->log.activity(), communicators_->all()) {
  LLAMA3D_EXPECT(plan_.grid.size(Axis::context) == 1, "grid {}", plan_.grid.shape().to_string());
  const ModelStateMemory& state = memory_.state;
  if (runtime.register_memory) register_memory();
  // Where no replica updates a part, each has all of its shard.
  const bool updates = plan_.shape.training;
  store_ = std::make_unique<ResidentParameterStore>(
      plan_.table, state,
      owned_slices(plan_.table, updates ? plan_.grid.size(Axis::data) : 1,
                   updates ? plan_.grid.rank(Axis::data) : 0),
      (*communicators_)[Axis::data], runtime.device.kernels(), *stream_);
  if (make_store) other_store_ = make_store(*store_, runtime.device, *stream_);
  ParameterStore& store = other_store_ ? *other_store_ : *store_;
  stage_ =
      std::make_unique<Stage>(plan_.shape.model, plan_.layout, plan_.table, store, runtime.device, *stream_,
                              (*communicators_)[Axis::tensor], memory_.stage, state.loss_totals());
  overlap_ = choose_overlap(plan_, memory_, *stage_, runtime.device, *stream_, runtime.control);
  executor_ = std::make_unique<PipelineExecutor>(plan_.pipeline, plan_.grid.rank(Axis::pipeline), *stage_,
                                                 *communicators_->pp_forward, *communicators_->pp_backward,
                                                 *stream_, memory_.boundaries);
  if (updates)
    optimizer_ = std::make_unique<DistributedOptimizer>(plan_.table, plan_.grid, optimizer, state, *store_,
                                                        runtime.device, *stream_, *communicators_);
  state_ = std::make_unique<ModelState>(plan_.table, store_->slices(), plan_.grid, state, runtime.device,
                                        *stream_);
  for (StepEvents& events : events_)
    for (auto* event : {&events.begin, &events.gradients, &events.end})
      *event = runtime.device.create_event();
}

/// What tensor parallelism moves: all of it is exposed in part, so a copy less shows. The other groups'
/// transfers hide behind compute either way. A tensor has to lie at the same place on every rank of a group.
void Engine::register_memory() {
  const Tensor moved[] = {memory_.activations.whole(), memory_.workspace.whole()};
  const auto sizes = runtime_->control.all_gather(fmt::format("{} {}", moved[0].bytes(), moved[1].bytes()));
  for (const int rank : plan_.grid.group(Axis::tensor))
    if (sizes[static_cast<std::size_t>(rank)] != sizes[static_cast<std::size_t>(runtime_->control.rank())])
      return;
  for (const Tensor& memory : moved) (*communicators_)[Axis::tensor].register_memory(memory);
}

void Engine::queue_step(std::span<const BatchRows> micro_batches, std::int64_t step, double learning_rate,
                        bool with_timeline) {
  LLAMA3D_EXPECT(optimizer_, "a step of a run that does not train");
  LLAMA3D_EXPECT(std::ssize(micro_batches) == plan_.pipeline.micro_batches,
                 "{} micro-batches in a step of {}", micro_batches.size(), plan_.pipeline.micro_batches);
  LLAMA3D_EXPECT(under_way_.size() < kStepsUnderWay, "step {} queued on top of {} others", step,
                 under_way_.size());
  StepUnderWay record = begin_record(step, with_timeline);
  const WorkRange range(*stream_, fmt::format("step {}", step).c_str());
  stream_->record(*events_[step].begin);
  optimizer_->begin_step();
  executor_->train(next_schedule(), views(micro_batches), record.spans.get());
  stream_->record(*events_[step].gradients);
  end_gradients(record);
  {
    const WorkRange update(*stream_, "update");
    optimizer_->reduce_gradients();
    optimizer_->clip_gradients(step);
    optimizer_->update(step, learning_rate, *events_[step].end);
  }
  end_update(std::move(record));
}

Engine::StepUnderWay Engine::begin_record(std::int64_t step, bool with_timeline) {
  CommunicationLog& log = communicators_->log;
  log.end_interval();
  log.time_all(with_timeline || first_step_);  // the first has the longest waits, which no sample should miss
  log.activity().at({step, -1});
  StepUnderWay record;
  record.step = step;
  record.follows = !under_way_.empty();
  record.begin = CommunicationLog::now();
  if (with_timeline) record.spans = std::make_unique<SpanRecorder>(runtime_->device);
  return record;
}

void Engine::end_gradients(StepUnderWay& step) {
  step.gradients = communicators_->log.end_interval();
  communicators_->log.activity().at({step.step, -1});
  if (step.spans) step.spans->begin("update", -1, *stream_);
}

void Engine::end_update(StepUnderWay step) {
  if (step.spans) step.spans->end(*stream_);
  step.update = communicators_->log.end_interval();
  communicators_->log.time_all(false);  // an evaluation may follow
  under_way_.push_back(std::move(step));
}

CommunicationInterval Engine::finish_gathers() {
  CommunicationLog& log = communicators_->log;
  log.end_interval();
  store_->wait_for_parameters();
  stream_->synchronize();
  log.activity().pass();
  return log.end_interval();
}

std::vector<TimelineSpan> Engine::timeline_of(const StepUnderWay& step, const CommunicationInterval& behind,
                                              const TimeOrigin& origin) {
  std::vector<TimelineSpan> timeline;
  if (!step.spans) return timeline;
  for (const auto& [name, micro_batch, begin, end] : step.spans->spans(origin.event))
    timeline.push_back({"compute", name, micro_batch, begin, end});
  for (const CommunicationInterval* interval : {&step.gradients, &step.update, &behind})
    for (const auto& [label, times] : interval->spans(origin)) {
      timeline.push_back({lane_of(label), std::string(label.name), -1, times.begin, times.end});
      if (times.exposed > 0)
        timeline.push_back({"waits", std::string(label.name), -1, times.end - times.exposed, times.end});
    }
  return timeline;
}

StepReport Engine::take_report() {
  const StepUnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  const StepEvents& events = events_[step.step];
  events.end->synchronize();
  communicators_->log.activity().pass();
  CommunicationInterval rest;
  if (under_way_.empty()) rest = finish_gathers();
  const TimeOrigin origin{*events.begin, step.begin};
  const LabelRecords gradients = step.gradients.records(origin), update = step.update.records(origin);
  const Device& device = runtime_->device;
  StepReport report;
  report.result = optimizer_->result(step.step);
  report.communication = sum_of(gradients, update);
  // A step that follows another has gathered what that one updated: each counts one step's gathers.
  if (!step.follows) report.communication = sum_of(report.communication, rest.records(origin));
  report.timeline = timeline_of(step, rest, origin);
  const LabelRecords& all = report.communication;
  report.seconds = {
      .compute = std::max(
          0.0, device.elapsed_seconds(*events.begin, *events.gradients) - exposed_seconds(gradients, "")),
      .tp = exposed_seconds(all, "tp"),
      .pp = exposed_seconds(all, "pp"),
      .dp = exposed_seconds(all, "dp") + exposed_seconds(all, "world"),
      .optimizer = device.elapsed_seconds(*events.gradients, *events.end) - exposed_seconds(update, "")};
  report.step_seconds =
      device.elapsed_seconds(step.follows ? *events_[step.step - 1].end : *events.begin, *events.end);
  return report;
}

Evaluation Engine::evaluate(std::span<const BatchRows> micro_batches) {
  LLAMA3D_EXPECT(under_way_.empty(), "evaluation beside {} steps under way", under_way_.size());
  const Tensor totals = memory_.state.loss_totals();
  Kernels& kernels = runtime_->device.kernels();
  kernels.fill_zero(totals, *stream_);
  PipelineShape shape = plan_.pipeline;
  shape.micro_batches = static_cast<int>(micro_batches.size());
  const Schedule schedule = make_forward_schedule(shape);
  executor_->evaluate(schedule.ranks[static_cast<std::size_t>(plan_.grid.rank(Axis::pipeline))],
                      views(micro_batches));
  communicators_->log.activity().micro_batch(-1);
  // Every tp rank of the last stage knows the same losses.
  if (plan_.grid.rank(Axis::tensor) != 0) kernels.fill_zero(totals, *stream_);
  communicators_->world->all_reduce(totals, ReduceOperation::sum, labels::world_totals, *stream_)
      ->wait(*stream_);
  runtime_->device.download(host_totals_.get(), totals, *stream_);
  stream_->synchronize();
  communicators_->log.activity().pass();
  // Nobody asks for the times of an evaluation; kept, they would grow with its length.
  communicators_->log.end_interval();
  const auto* sums = static_cast<const double*>(host_totals_.get());
  return {unsigned_nan(sums[0] / sums[1]), sums[1]};
}

}  // namespace llama3d
