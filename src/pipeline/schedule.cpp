#include "pipeline/schedule.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "pipeline/compute_order.hpp"

namespace llama3d {
namespace {

constexpr std::array<std::pair<ScheduleKind, std::string_view>, 4> kScheduleNames{{
    {ScheduleKind::gpipe, "gpipe"},
    {ScheduleKind::one_f_one_b, "1f1b"},
    {ScheduleKind::interleaved, "interleaved"},
    {ScheduleKind::zero_bubble, "zero-bubble"},
}};

[[noreturn]] void refuse(ScheduleKind kind, const std::string& why, const std::string& suggestion) {
  throw ConfigurationError(
      fmt::format("pipeline schedule {} is impossible here ({}); {}", name_of(kind), why, suggestion));
}

/// The receive that a computation of `stage` waits for, if any: the model's ends receive nothing.
std::optional<Action> receive_for(const PipelineShape& shape, int stage, const Action& compute) {
  const int g = shape.global_chunk(stage, compute.chunk);
  switch (compute.kind) {
    case ActionKind::forward:
      if (g == 0) return std::nullopt;
      return Action{ActionKind::receive_activation, compute.micro_batch, compute.chunk};
    case ActionKind::backward:
    case ActionKind::backward_input:
      if (g == shape.global_chunks() - 1) return std::nullopt;
      return Action{ActionKind::receive_gradient, compute.micro_batch, compute.chunk};
    default: return std::nullopt;
  }
}

/// The send of what a computation of `stage` produces, if anybody needs it.
std::optional<Action> send_after(const PipelineShape& shape, int stage, const Action& compute) {
  const int g = shape.global_chunk(stage, compute.chunk);
  switch (compute.kind) {
    case ActionKind::forward:
      if (g == shape.global_chunks() - 1) return std::nullopt;
      return Action{ActionKind::send_activation, compute.micro_batch, compute.chunk};
    case ActionKind::backward:
    case ActionKind::backward_input:
      if (g == 0) return std::nullopt;
      return Action{ActionKind::send_gradient, compute.micro_batch, compute.chunk};
    default: return std::nullopt;
  }
}

using Actions = std::vector<Action>;

/// Where a receive goes into the actions so far, those before the computation that needs it. In a ring of
/// stages it directly follows the last send of its channel, and so starts together with it: stages whose
/// sends all came first would wait for each other.
Actions::iterator place_of(const Action& receive, Actions& actions, bool ring, ReceiveStart receives) {
  const auto of_channel = [channel = channel_of(receive.kind)](const Action& action) {
    return !is_compute(action.kind) && channel_of(action.kind) == channel;
  };
  const auto last = ring ? std::find_if(actions.rbegin(), actions.rend(), of_channel)
                         : std::find_if(actions.rbegin(), actions.rend(),
                                        [](const Action& action) { return is_compute(action.kind); });
  if (last == actions.rend()) return actions.end();
  if (ring) return is_send(last->kind) ? last.base() : actions.end();
  return receives == ReceiveStart::ahead ? std::prev(last.base()) : actions.end();
}

/// Puts the communication between the computations of one stage.
Actions with_communication(const Actions& computes, const PipelineShape& shape, int stage,
                           ReceiveStart receives = ReceiveStart::when_needed) {
  Actions actions;
  actions.reserve(3 * computes.size());
  for (const Action& compute : computes) {
    if (const auto receive = receive_for(shape, stage, compute))
      actions.insert(place_of(*receive, actions, shape.chunks > 1, receives), *receive);
    actions.push_back(compute);
    if (const auto send = send_after(shape, stage, compute)) actions.push_back(*send);
  }
  return actions;
}

int count_peak_live(const std::vector<Action>& computes) {
  int live = 0, peak = 0;
  for (const Action& compute : computes) {
    if (compute.kind == ActionKind::forward) peak = std::max(peak, ++live);
    if (compute.kind == ActionKind::backward || compute.kind == ActionKind::backward_weight) --live;
  }
  return peak;
}

}  // namespace

std::string_view name_of(ScheduleKind kind) {
  for (const auto& [candidate, name] : kScheduleNames) {
    if (candidate == kind) return name;
  }
  throw ContractViolation("unknown schedule kind");
}

ScheduleKind parse_schedule_kind(std::string_view word) {
  std::string valid;
  for (const auto& [kind, name] : kScheduleNames) {
    if (name == word) return kind;
    valid += fmt::format("{}{}", valid.empty() ? "" : ", ", name);
  }
  throw ConfigurationError(
      fmt::format("unknown `pipeline_schedule` '{}' (not one of the schedules); use one of {}", word, valid));
}

std::string_view name_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::receive_activation: return "receive_activation";
    case ActionKind::forward: return "forward";
    case ActionKind::send_activation: return "send_activation";
    case ActionKind::receive_gradient: return "receive_gradient";
    case ActionKind::backward: return "backward";
    case ActionKind::backward_input: return "backward_input";
    case ActionKind::send_gradient: return "send_gradient";
    case ActionKind::backward_weight: return "backward_weight";
  }
  return "unknown action";
}

std::string to_string(const Action& action) {
  return fmt::format("{}(micro-batch {}, chunk {})", name_of(action.kind), action.micro_batch, action.chunk);
}

bool is_send(ActionKind kind) {
  return kind == ActionKind::send_activation || kind == ActionKind::send_gradient;
}

bool is_receive(ActionKind kind) {
  return kind == ActionKind::receive_activation || kind == ActionKind::receive_gradient;
}

Channel channel_of(ActionKind kind) {
  LLAMA3D_EXPECT(!is_compute(kind), "{} has no channel", name_of(kind));
  return kind == ActionKind::send_activation || kind == ActionKind::receive_activation ? Channel::activation
                                                                                       : Channel::gradient;
}

bool starts_together(const Action& action, const Action& next) {
  return is_send(action.kind) && is_receive(next.kind) && channel_of(action.kind) == channel_of(next.kind);
}

PlacedAction counterpart(const PipelineShape& shape, int stage, const Action& action) {
  const bool activation = channel_of(action.kind) == Channel::activation;
  const bool towards_the_end = activation == is_send(action.kind);
  const int g = shape.global_chunk(stage, action.chunk) + (towards_the_end ? 1 : -1);
  LLAMA3D_EXPECT(g >= 0 && g < shape.global_chunks(), "rank {}: {} reaches beyond the model", stage,
                 to_string(action));
  const ActionKind kind = is_send(action.kind)
                              ? (activation ? ActionKind::receive_activation : ActionKind::receive_gradient)
                              : (activation ? ActionKind::send_activation : ActionKind::send_gradient);
  return {g % shape.stages, {kind, action.micro_batch, g / shape.stages}};
}

ReceiveStart receive_start_of(ScheduleKind kind, const PipelineShape& shape, ReceiveStart asked) {
  // In a pipeline that is never full computations of one kind follow each other, and what one of them makes
  // would be sent only behind the receive for the next.
  const bool full = shape.micro_batches >= shape.stages;
  return full && kind != ScheduleKind::interleaved ? asked : ReceiveStart::when_needed;
}

void check_schedule(ScheduleKind kind, const PipelineShape& shape) {
  const auto [p, v, m] = shape;
  if (p < 1 || v < 1 || m < 1) {
    refuse(kind, fmt::format("{} stages, {} chunks, {} micro-batches", p, v, m), "each must be at least 1");
  }
  if (kind != ScheduleKind::interleaved) {
    if (v > 1) refuse(kind, fmt::format("{} model chunks a stage", v), "use one chunk, or interleaved");
    return;
  }
  if (p < 2) refuse(kind, "a single stage has nothing to interleave with", "use 1f1b or at least 2 stages");
  if (v < 2) refuse(kind, "one model chunk a stage", "use 1f1b or at least 2 chunks");
  if (m % p != 0) {
    refuse(kind, fmt::format("{} micro-batches are not a multiple of {} stages", m, p),
           "change the global batch size or the micro-batch size, or use 1f1b");
  }
}

Schedule make_schedule(ScheduleKind kind, const PipelineShape& shape, ReceiveStart receives) {
  check_schedule(kind, shape);
  receives = receive_start_of(kind, shape, receives);
  Schedule schedule{kind, shape, {}, /*trains=*/true, receives};
  for (int stage = 0; stage < shape.stages; ++stage) {
    const std::vector<Action> computes = compute_order(kind, shape, stage, receives);
    schedule.ranks.push_back(
        {with_communication(computes, shape, stage, receives), count_peak_live(computes)});
  }
  return schedule;
}

std::vector<bool> last_of_kind(const RankSchedule& schedule) {
  std::vector<bool> last(schedule.actions.size());
  std::set<std::pair<ActionKind, int>> seen;
  for (std::size_t i = schedule.actions.size(); i-- > 0;)
    last[i] = seen.insert({schedule.actions[i].kind, schedule.actions[i].chunk}).second;
  return last;
}

Schedule make_forward_schedule(const PipelineShape& shape) {
  Schedule schedule{ScheduleKind::interleaved, shape, {}, /*trains=*/false};
  for (int stage = 0; stage < shape.stages; ++stage)
    schedule.ranks.push_back(
        {with_communication(forward_order(shape), shape, stage), /*peak_live_activations=*/1});
  return schedule;
}

}  // namespace llama3d
