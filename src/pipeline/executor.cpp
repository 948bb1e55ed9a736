#include "pipeline/executor.hpp"

#include <algorithm>
#include <set>

#include "comm/labels.hpp"

namespace llama3d {
namespace {

using Key = std::pair<int, int>;  // micro-batch, chunk

/// Most keys alive at once, from an action that `begins` to one of `end`.
template <class Begins>
int peak_alive(const RankSchedule& schedule, Begins begins, const std::set<ActionKind>& end) {
  std::set<Key> alive;
  std::size_t peak = 0;
  for (const Action& action : schedule.actions) {
    const Key key{action.micro_batch, action.chunk};
    if (begins(action)) alive.insert(key);
    peak = std::max(peak, alive.size());
    if (end.contains(action.kind)) alive.erase(key);
  }
  return static_cast<int>(peak);
}

}  // namespace

PipelineBufferCounts PipelineBufferCounts::of(const RankSchedule& schedule) {
  using enum ActionKind;
  const auto has = [&](ActionKind kind) {
    return std::any_of(schedule.actions.begin(), schedule.actions.end(),
                       [&](const auto& a) { return a.kind == kind; });
  };
  PipelineBufferCounts counts;
  counts.slots = schedule.peak_live_activations;
  counts.outputs = has(send_activation) ? kBuffersPerChannel : 0;
  if (!has(backward) && !has(backward_weight)) {
    // An input lives as long as its forward pass, and evaluations are of different sizes.
    counts.inputs = kBuffersPerChannel;
    return counts;
  }
  const auto begins_input = [](const Action& a) { return a.kind == receive_activation || a.kind == forward; };
  counts.inputs = peak_alive(schedule, begins_input, {backward, backward_weight});
  std::set<Key> received;
  for (const Action& a : schedule.actions)
    if (a.kind == receive_gradient) received.insert({a.micro_batch, a.chunk});
  // What is not received comes from the loss.
  const auto begins_gradient = [&](const Action& a) {
    return a.kind == receive_gradient || (a.kind == forward && !received.contains({a.micro_batch, a.chunk}));
  };
  counts.gradients = peak_alive(schedule, begins_gradient, {backward, backward_input});
  if (has(send_gradient)) counts.gradients += kBuffersPerChannel - 1;
  return counts;
}

PipelineBufferCounts PipelineBufferCounts::at_least(const PipelineBufferCounts& other) const {
  return {std::max(slots, other.slots), std::max(inputs, other.inputs), std::max(outputs, other.outputs),
          std::max(gradients, other.gradients)};
}

PipelineBuffers PipelineBuffers::take(Arena& arena, const StageShape& shape,
                                      const PipelineBufferCounts& counts) {
  const auto take = [&](int count) {
    std::vector<Tensor> buffers;
    for (int i = 0; i < count; ++i)
      buffers.push_back(arena.take(shape.compute(), {shape.shard_rows, shape.hidden}));
    return buffers;
  };
  return {take(counts.inputs), take(counts.outputs), take(counts.gradients)};
}

PipelineExecutor::PipelineExecutor(const PipelineShape& shape, int stage_index, Stage& stage,
                                   Communicator& forward, Communicator& backward, Stream& stream,
                                   const PipelineBuffers& buffers)
    : shape_(shape),
      stage_index_(stage_index),
      stage_(&stage),
      forward_(&forward),
      backward_(&backward),
      stream_(&stream),
      inputs_(buffers.inputs),
      outputs_(buffers.outputs),
      gradients_(buffers.gradients),
      slot_used_(static_cast<std::size_t>(stage.layout().slots)) {}

void PipelineExecutor::train(const RankSchedule& schedule, std::span<const MicroBatchRows> rows,
                             SpanRecorder* spans) {
  training_ = true;
  spans_ = spans;
  run(schedule, rows);
}

void PipelineExecutor::evaluate(const RankSchedule& schedule, std::span<const MicroBatchRows> rows) {
  training_ = false;
  spans_ = nullptr;
  run(schedule, rows);
}

void PipelineExecutor::run(const RankSchedule& schedule, std::span<const MicroBatchRows> rows) {
  const auto& actions = schedule.actions;
  const std::vector<bool> last = last_of_kind(schedule);
  for (auto action = actions.begin(); action != actions.end();) {
    forward_->activity().micro_batch(action->micro_batch);
    if (is_compute(action->kind)) {
      compute(*action, rows, last[static_cast<std::size_t>(action - actions.begin())]);
      ++action;
      continue;
    }
    const auto next = action + 1;
    const bool together = next != actions.end() && starts_together(*action, *next);
    const auto end = together ? next + 1 : next;
    communicate({action, end});
    action = end;
  }
  outputs_.drain(*stream_);
  gradients_.drain(*stream_);
  LLAMA3D_EXPECT(live_.empty(), "{} micro-batches unfinished at the end of the schedule", live_.size());
}

void PipelineExecutor::communicate(std::span<const Action> actions) {
  std::vector<Transfer> transfers;
  for (const Action& action : actions) transfers.push_back(transfer(action));
  const bool activations = channel_of(actions.front().kind) == Channel::activation;
  Communicator& channel = activations ? *forward_ : *backward_;
  const auto work = std::make_shared<SharedWork>(
      channel.exchange(transfers, activations ? labels::pp_activation : labels::pp_gradient, *stream_));
  for (const Action& action : actions) started(action, work);
}

void PipelineExecutor::started(const Action& action, const SharedWorkHandle& work) {
  Live& live = live_[{action.micro_batch, action.chunk}];
  switch (action.kind) {
    case ActionKind::receive_activation: live.receive_activation = work; break;
    case ActionKind::receive_gradient: live.receive_gradient = work; break;
    case ActionKind::send_activation:
      outputs_.release_after(std::exchange(live.output, -1), work);
      if (!training_) live_.erase({action.micro_batch, action.chunk});
      break;
    default:  // send_gradient
      gradients_.release_after(std::exchange(live.gradient, -1), work);
      if (!splits()) finish(action);
  }
}

Transfer PipelineExecutor::transfer(const Action& action) {
  Live& live = live_[{action.micro_batch, action.chunk}];
  const int next = (stage_index_ + 1) % shape_.stages,
            previous = (stage_index_ + shape_.stages - 1) % shape_.stages;
  switch (action.kind) {
    case ActionKind::receive_activation:
      live.input = inputs_.acquire(*stream_);
      return {Transfer::Direction::receive, inputs_[live.input], previous};
    case ActionKind::send_activation: return {Transfer::Direction::send, outputs_[live.output], next};
    case ActionKind::receive_gradient:
      live.gradient = gradients_.acquire(*stream_);
      return {Transfer::Direction::receive, gradients_[live.gradient], next};
    default: return {Transfer::Direction::send, gradients_[live.gradient], previous};
  }
}

void PipelineExecutor::compute(const Action& action, std::span<const MicroBatchRows> rows, bool last) {
  const WorkRange range(*stream_, to_string(action).c_str());
  if (spans_) spans_->begin(std::string(name_of(action.kind)), action.micro_batch, *stream_);
  switch (action.kind) {
    case ActionKind::forward: forward(action, rows, last); break;
    case ActionKind::backward:
    case ActionKind::backward_input: backward(action, last); break;
    default: backward_weight(action, last);
  }
  if (spans_) spans_->end(*stream_);
}

int PipelineExecutor::acquire_slot() {
  const auto free = std::find(slot_used_.begin(), slot_used_.end(), false);
  LLAMA3D_EXPECT(free != slot_used_.end(), "all {} activation slots are in use", slot_used_.size());
  *free = true;
  peak_slots_ =
      std::max(peak_slots_, static_cast<int>(std::count(slot_used_.begin(), slot_used_.end(), true)));
  return static_cast<int>(free - slot_used_.begin());
}

void PipelineExecutor::forward(const Action& action, std::span<const MicroBatchRows> rows, bool last) {
  Live& live = live_[{action.micro_batch, action.chunk}];
  live.slot = acquire_slot();
  stage_->load(live.slot, rows[static_cast<std::size_t>(action.micro_batch)]);
  if (const auto work = std::exchange(live.receive_activation, nullptr)) work->wait(*stream_);
  if (live.input < 0) live.input = inputs_.acquire(*stream_);
  const bool has_loss = stage_->has_loss(action.chunk);
  Tensor output;
  if (!has_loss) output = outputs_[live.output = outputs_.acquire(*stream_)];
  if (has_loss && training_) output = gradients_[live.gradient = gradients_.acquire(*stream_)];
  stage_->forward(action.chunk, live.slot, inputs_[live.input], output, training_, last);
  // Without a backward pass nothing of it is needed again, and the next input may come while the output goes.
  if (!training_) give_back(live);
  if (!training_ && has_loss) live_.erase({action.micro_batch, action.chunk});
}

void PipelineExecutor::backward(const Action& action, bool last) {
  Live& live = live_[{action.micro_batch, action.chunk}];
  if (const auto work = std::exchange(live.receive_gradient, nullptr)) work->wait(*stream_);
  stage_->backward(action.chunk, live.slot, gradients_[live.gradient], last);
  if (!stage_->has_embedding(action.chunk)) return;
  // Nothing is sent on from the first chunk.
  gradients_.release(std::exchange(live.gradient, -1));
  if (!splits()) finish(action);
}

void PipelineExecutor::backward_weight(const Action& action, bool last) {
  stage_->backward_weight(action.chunk, live_[{action.micro_batch, action.chunk}].slot, last);
  finish(action);
}

void PipelineExecutor::finish(const Action& action) {
  const auto found = live_.find({action.micro_batch, action.chunk});
  give_back(found->second);
  live_.erase(found);
}

void PipelineExecutor::give_back(const Live& live) {
  inputs_.release(live.input);
  slot_used_[static_cast<std::size_t>(live.slot)] = false;
}

}  // namespace llama3d
