#include "pipeline/schedule_check.hpp"

#include <array>

#include "base/error.hpp"
#include "pipeline/action_index.hpp"

namespace llama3d {
namespace {

/// What one rank must and must not do.
class RankRules {
 public:
  RankRules(const PipelineShape& shape, int stage, const std::vector<Action>& actions)
      : stage_(stage), index_(shape, stage, actions) {}

  bool has(const Action& action) const { return index_.find(action).has_value(); }

  void require(const Action& action) const {
    LLAMA3D_EXPECT(has(action), "rank {} never does {}", stage_, to_string(action));
  }

  void forbid(const Action& action, const char* why) const {
    LLAMA3D_EXPECT(!has(action), "rank {} does {}, but {}", stage_, to_string(action), why);
  }

  void require_in_order(const Action& first, const Action& second) const {
    require(first);
    require(second);
    LLAMA3D_EXPECT(*index_.find(first) < *index_.find(second), "rank {} does {} before {}", stage_,
                   to_string(second), to_string(first));
  }

 private:
  int stage_;
  ActionIndex index_;
};

/// One micro-batch on one chunk: receive, forward, send.
void check_forward(const RankRules& rules, const PipelineShape& shape, int stage, int micro_batch,
                   int chunk) {
  using enum ActionKind;
  const auto action = [=](ActionKind kind) { return Action{kind, micro_batch, chunk}; };
  rules.require(action(forward));
  if (shape.global_chunk(stage, chunk) == 0)
    rules.forbid(action(receive_activation), "the first chunk has no predecessor");
  else
    rules.require_in_order(action(receive_activation), action(forward));
  if (shape.global_chunk(stage, chunk) == shape.global_chunks() - 1)
    rules.forbid(action(send_activation), "the last chunk has no successor");
  else
    rules.require_in_order(action(forward), action(send_activation));
}

/// And back: receive, backward in one or two parts, send.
void check_backward(const RankRules& rules, const PipelineShape& shape, int stage, int micro_batch,
                    int chunk) {
  using enum ActionKind;
  const auto action = [=](ActionKind kind) { return Action{kind, micro_batch, chunk}; };
  const bool split = rules.has(action(backward_input)) || rules.has(action(backward_weight));
  const ActionKind gradient = split ? backward_input : backward;
  rules.require_in_order(action(forward), action(gradient));
  if (split) {
    rules.forbid(action(backward), "its two parts are there too");
    rules.require_in_order(action(backward_input), action(backward_weight));
  }

  if (shape.global_chunk(stage, chunk) == 0)
    rules.forbid(action(send_gradient), "the first chunk has no predecessor");
  else
    rules.require_in_order(action(gradient), action(send_gradient));
  if (shape.global_chunk(stage, chunk) == shape.global_chunks() - 1)
    rules.forbid(action(receive_gradient), "the last chunk has no successor");
  else
    rules.require_in_order(action(receive_gradient), action(gradient));
}

/// Nothing goes back.
void check_no_backward(const RankRules& rules, int micro_batch, int chunk) {
  using enum ActionKind;
  for (const ActionKind kind : {receive_gradient, backward, backward_input, backward_weight, send_gradient})
    rules.forbid({kind, micro_batch, chunk}, "an evaluation goes forward only");
}

/// Both ends of a channel must agree which tensor is the n-th. A rank receives from one other only, a
/// channel.
void check_transfer_order(const Schedule& schedule, int stage, ActionKind receive_kind) {
  std::size_t next = 0;  // place in the sender's actions, behind the last send that was matched
  for (const Action& receive : schedule.ranks[stage].actions) {
    if (receive.kind != receive_kind) continue;
    const PlacedAction send = counterpart(schedule.shape, stage, receive);
    const std::vector<Action>& theirs = schedule.ranks[send.stage].actions;
    while (next < theirs.size() && theirs[next].kind != send.action.kind) ++next;
    LLAMA3D_EXPECT(next < theirs.size(), "rank {}: nobody sends for {}", stage, to_string(receive));
    LLAMA3D_EXPECT(theirs[next] == send.action, "rank {} does {} where rank {} does {}", stage,
                   to_string(receive), send.stage, to_string(theirs[next]));
    ++next;
  }
}

/// A buffer is in use from the start of the receive to the end of the computation it is for.
void check_receive_buffers(const PipelineShape& shape, int stage, const std::vector<Action>& actions) {
  std::array<int, 2> in_use{};
  const auto used_on = [&](Channel channel) -> int& { return in_use[static_cast<std::size_t>(channel)]; };
  for (const Action& action : actions) {
    const int g = shape.global_chunk(stage, action.chunk);
    if (is_receive(action.kind)) {
      const int used = ++used_on(channel_of(action.kind));
      LLAMA3D_EXPECT(used <= kBuffersPerChannel,
                     "rank {}: {} finds all {} receive buffers of its channel in use", stage,
                     to_string(action), kBuffersPerChannel);
    } else if (action.kind == ActionKind::forward && g > 0) {
      --used_on(Channel::activation);
    } else if ((action.kind == ActionKind::backward || action.kind == ActionKind::backward_input) &&
               g < shape.global_chunks() - 1) {
      --used_on(Channel::gradient);
    }
  }
}

}  // namespace

void check_schedule(const Schedule& schedule) {
  const PipelineShape& shape = schedule.shape;
  LLAMA3D_EXPECT(shape.stages >= 1 && shape.chunks >= 1 && shape.micro_batches >= 1,
                 "a pipeline of {} stages, {} chunks and {} micro-batches", shape.stages, shape.chunks,
                 shape.micro_batches);
  LLAMA3D_EXPECT(static_cast<int>(schedule.ranks.size()) == shape.stages, "{} ranks for {} stages",
                 schedule.ranks.size(), shape.stages);
  for (int stage = 0; stage < shape.stages; ++stage) {
    const std::vector<Action>& actions = schedule.ranks[stage].actions;
    const RankRules rules(shape, stage, actions);
    for (int chunk = 0; chunk < shape.chunks; ++chunk) {
      for (int micro_batch = 0; micro_batch < shape.micro_batches; ++micro_batch) {
        check_forward(rules, shape, stage, micro_batch, chunk);
        if (schedule.trains)
          check_backward(rules, shape, stage, micro_batch, chunk);
        else
          check_no_backward(rules, micro_batch, chunk);
      }
    }
    check_receive_buffers(shape, stage, actions);
  }
  for (int stage = 0; stage < shape.stages; ++stage) {
    check_transfer_order(schedule, stage, ActionKind::receive_activation);
    check_transfer_order(schedule, stage, ActionKind::receive_gradient);
  }
}

}  // namespace llama3d
