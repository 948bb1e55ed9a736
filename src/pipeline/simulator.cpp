#include "pipeline/simulator.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <string_view>
#include <utility>

#include "base/error.hpp"
#include "pipeline/action_index.hpp"
#include "pipeline/schedule_check.hpp"

namespace llama3d {
namespace {

using Timeline = std::vector<std::vector<TimedAction>>;

enum class Rules {
  buffered_sends,  ///< complete at once and hold up nothing
  matched_sends,   ///< those of schedule.hpp
  cold_start,      ///< matched, and a computation waits for all that its rank has started before
};

std::string_view words_of(Rules rules) {
  switch (rules) {
    case Rules::buffered_sends: return "sends complete at once";
    case Rules::matched_sends: return "sends complete only with their receives";
    case Rules::cold_start: return "computations wait for all that was started before";
  }
  throw ContractViolation("unknown rules");
}

constexpr double kUnknown = -1;
bool known(double time) {
  return time >= 0;
}

/// An action's place: rank and index in its list.
struct Place {
  std::size_t rank = 0, index = 0;
};

/// A send, a receive, or a send and a receive that start and complete together.
struct Operation {
  std::vector<std::size_t> indices;  ///< in the rank's actions
  double queued = 0;
};

/// Operations that are queued and not complete, in order.
struct ChannelState {
  std::deque<Operation> operations;
  double free_at = 0;  ///< end of the last complete one
};

struct RankState {
  std::size_t next = 0;  ///< first action that was not started
  double clock = 0;      ///< end of the last computation
  std::array<ChannelState, 2> channels;
};

/// What ties an action to others.
struct Links {
  std::vector<std::size_t>
      waits_for;      ///< computation: its receive and the send whose buffer it reuses, same rank
  Place counterpart;  ///< send or receive: the other end
};

/// What a computation waits for: its receive, and the send before last of its channel, as kBuffersPerChannel
/// says, which for the loss's gradient is the forward's to wait for. `sends` are the rank's sends so far in
/// the order of their computations, a list a channel.
std::vector<std::size_t> prerequisites(const ActionIndex& index, const Action& compute,
                                       std::array<std::vector<std::size_t>, 2>& sends) {
  using enum ActionKind;
  const auto [kind, micro_batch, chunk] = compute;
  std::vector<std::size_t> waits_for;
  if (kind == backward_weight) return waits_for;
  const auto find = [&](ActionKind other) { return index.find({other, micro_batch, chunk}); };
  const bool forwards = kind == forward, has_loss = find(send_gradient) && !find(receive_gradient);
  const ActionKind receive = forwards ? receive_activation : receive_gradient,
                   send = forwards && !has_loss ? send_activation : send_gradient;
  if (const auto place = find(receive)) waits_for.push_back(*place);
  if (const auto place = find(send)) {
    std::vector<std::size_t>& sent = sends[static_cast<std::size_t>(channel_of(send))];
    const bool takes_buffer = forwards || !has_loss, sends_it = !forwards || !has_loss;
    if (takes_buffer && sent.size() >= kBuffersPerChannel)
      waits_for.push_back(sent[sent.size() - kBuffersPerChannel]);
    if (sends_it) sent.push_back(*place);
  }
  return waits_for;
}

using AllLinks = std::vector<std::vector<Links>>;

AllLinks link(const Schedule& schedule) {
  std::vector<ActionIndex> index;
  for (int stage = 0; stage < schedule.shape.stages; ++stage) {
    index.emplace_back(schedule.shape, stage, schedule.ranks[stage].actions);
  }
  AllLinks links;
  for (int stage = 0; stage < schedule.shape.stages; ++stage) {
    std::array<std::vector<std::size_t>, 2> sends;
    std::vector<Links>& line = links.emplace_back();
    for (const Action& action : schedule.ranks[stage].actions) {
      if (is_compute(action.kind)) {
        line.push_back({prerequisites(index[stage], action, sends), {}});
      } else {
        const PlacedAction other = counterpart(schedule.shape, stage, action);
        line.push_back(
            {{}, {static_cast<std::size_t>(other.stage), index[other.stage].find(other.action).value()}});
      }
    }
  }
  return links;
}

/// Plays all ranks against each other. Begin and end of an action follow from those of others alone, so the
/// order in which the ranks are looked at does not matter.
class Player {
 public:
  Player(const Schedule& schedule, const std::vector<ActionCosts>& costs, const AllLinks& links, Rules rules)
      : schedule_(schedule), costs_(costs), links_(links), rules_(rules), ranks_(schedule.ranks.size()) {
    for (const RankSchedule& rank : schedule.ranks) {
      std::vector<TimedAction>& line = timeline_.emplace_back();
      for (const Action& action : rank.actions) line.push_back({action, kUnknown, kUnknown});
    }
  }

  /// Throws ContractViolation when it comes to a halt before the end.
  Timeline play() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
        moved |= advance(rank);
        for (ChannelState& channel : ranks_[rank].channels) moved |= progress(rank, channel);
      }
    }
    const std::string stuck = describe_stuck();
    LLAMA3D_EXPECT(stuck.empty(), "{} schedule deadlocks when {}: {}", name_of(schedule_.kind),
                   words_of(rules_), stuck);
    return std::move(timeline_);
  }

 private:
  bool matched() const { return rules_ != Rules::buffered_sends; }

  const ActionCosts& costs_of(std::size_t rank, const Action& action) const {
    if (costs_.size() == 1) return costs_.front();
    const int g = schedule_.shape.global_chunk(static_cast<int>(rank), action.chunk);
    return costs_[static_cast<std::size_t>(g)];
  }

  double compute_time(std::size_t rank, const Action& action) const {
    const ActionCosts& costs = costs_of(rank, action);
    switch (action.kind) {
      case ActionKind::forward: return costs.forward;
      case ActionKind::backward_input: return costs.backward_input;
      case ActionKind::backward_weight: return costs.backward_weight;
      default: return costs.backward_input + costs.backward_weight;
    }
  }

  /// Set by the sender, so that both ends agree.
  double transfer_time(std::size_t rank, std::size_t index) const {
    const Action& action = timeline_[rank][index].action;
    if (is_send(action.kind)) return costs_of(rank, action).communication;
    const Place sender = links_[rank][index].counterpart;
    return costs_of(sender.rank, timeline_[sender.rank][sender.index].action).communication;
  }

  /// First action of the rank that its next computation waits for in vain; null when it can run.
  const TimedAction* obstacle(std::size_t rank) const {
    for (const std::size_t needed : links_[rank][ranks_[rank].next].waits_for) {
      if (!known(timeline_[rank][needed].end)) return &timeline_[rank][needed];
    }
    if (rules_ != Rules::cold_start) return nullptr;
    for (const ChannelState& channel : ranks_[rank].channels) {
      if (!channel.operations.empty()) return &timeline_[rank][channel.operations.front().indices.front()];
    }
    return nullptr;
  }

  /// Starts the rank's actions up to a computation that has to wait.
  bool advance(std::size_t rank) {
    RankState& state = ranks_[rank];
    std::vector<TimedAction>& line = timeline_[rank];
    const std::size_t before = state.next;
    for (; state.next < line.size(); ++state.next) {
      if (!is_compute(line[state.next].action.kind)) {
        enqueue(rank, state.next);
      } else {
        if (obstacle(rank)) break;
        compute(rank, state.next);
      }
    }
    return state.next > before;
  }

  void compute(std::size_t rank, std::size_t index) {
    TimedAction& timed = timeline_[rank][index];
    timed.begin = ranks_[rank].clock;
    for (const std::size_t needed : links_[rank][index].waits_for) {
      timed.begin = std::max(timed.begin, timeline_[rank][needed].end);
    }
    timed.end = timed.begin + compute_time(rank, timed.action);
    ranks_[rank].clock = timed.end;
  }

  void enqueue(std::size_t rank, std::size_t index) {
    RankState& state = ranks_[rank];
    const std::vector<TimedAction>& line = timeline_[rank];
    auto& operations =
        state.channels[static_cast<std::size_t>(channel_of(line[index].action.kind))].operations;
    const bool joins = matched() && index > 0 && starts_together(line[index - 1].action, line[index].action);
    if (joins) {
      operations.back().indices.push_back(index);
    } else {
      operations.push_back({{index}, state.clock});
    }
  }

  /// Completes what can be completed: with matched sends the channel's first operation only, then the next.
  bool progress(std::size_t rank, ChannelState& channel) {
    bool moved = false;
    auto operation = channel.operations.begin();
    while (operation != channel.operations.end()) {
      moved |= begin(rank, channel, *operation);
      if (complete(rank, channel, *operation)) {
        operation = channel.operations.erase(operation);
        moved = true;
      } else if (matched()) {
        break;
      } else {
        ++operation;
      }
    }
    return moved;
  }

  bool begin(std::size_t rank, const ChannelState& channel, const Operation& operation) {
    bool moved = false;
    for (const std::size_t index : operation.indices) {
      double& begin = timeline_[rank][index].begin;
      if (known(begin)) continue;
      begin = matched() ? std::max(operation.queued, channel.free_at) : operation.queued;
      moved = true;
    }
    return moved;
  }

  bool complete(std::size_t rank, ChannelState& channel, const Operation& operation) {
    double end = 0;
    for (const std::size_t index : operation.indices) {
      const double transfer_end = end_of_transfer(rank, index);
      if (!known(transfer_end)) return false;
      end = std::max(end, transfer_end);
    }
    for (const std::size_t index : operation.indices) timeline_[rank][index].end = end;
    channel.free_at = end;
    return true;
  }

  double end_of_transfer(std::size_t rank, std::size_t index) const {
    const TimedAction& here = timeline_[rank][index];
    const Place other = links_[rank][index].counterpart;
    const TimedAction& there = timeline_[other.rank][other.index];
    if (!matched() && is_send(here.action.kind)) return here.begin;
    if (!known(there.begin)) return kUnknown;
    return std::max(here.begin, there.begin) + transfer_time(rank, index);
  }

  /// Empty when every rank came to its end.
  std::string describe_stuck() const {
    std::string text;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      std::string where;
      if (ranks_[rank].next < timeline_[rank].size()) {
        where = fmt::format("at {} waiting for {}", to_string(timeline_[rank][ranks_[rank].next].action),
                            to_string(obstacle(rank)->action));
      } else {
        for (const ChannelState& channel : ranks_[rank].channels) {
          if (channel.operations.empty()) continue;
          const std::size_t index = channel.operations.front().indices.front();
          where = fmt::format("at its end waiting for {}", to_string(timeline_[rank][index].action));
        }
      }
      if (!where.empty()) text += fmt::format("{}rank {} {}", text.empty() ? "" : "; ", rank, where);
    }
    return text;
  }

  const Schedule& schedule_;
  const std::vector<ActionCosts>& costs_;
  const AllLinks& links_;
  Rules rules_;
  std::vector<RankState> ranks_;
  Timeline timeline_;
};

void check_costs(const PipelineShape& shape, const std::vector<ActionCosts>& costs) {
  const auto wanted = static_cast<std::size_t>(shape.global_chunks());
  LLAMA3D_EXPECT(costs.size() == 1 || costs.size() == wanted, "{} costs for {} global chunks", costs.size(),
                 wanted);
  for (const auto& [forward, backward_input, backward_weight, communication] : costs) {
    LLAMA3D_EXPECT(forward >= 0 && backward_input >= 0 && backward_weight >= 0 && communication >= 0,
                   "a cost is negative: forward {}, backward_input {}, backward_weight {}, communication {}",
                   forward, backward_input, backward_weight, communication);
  }
}

int peak_live(const std::vector<TimedAction>& line, bool trains) {
  int live = 0, peak = 0;
  for (const TimedAction& timed : line) {
    const ActionKind kind = timed.action.kind;
    if (kind == ActionKind::forward) peak = std::max(peak, ++live);
    const bool last = trains ? kind == ActionKind::backward || kind == ActionKind::backward_weight
                             : kind == ActionKind::forward;
    if (last) --live;
  }
  return peak;
}

}  // namespace

Simulation simulate(const Schedule& schedule, const std::vector<ActionCosts>& costs) {
  check_schedule(schedule);
  check_costs(schedule.shape, costs);
  const AllLinks links = link(schedule);
  Player(schedule, costs, links, Rules::buffered_sends).play();

  Simulation simulation;
  simulation.timeline = Player(schedule, costs, links, Rules::matched_sends).play();
  if (schedule.receives == ReceiveStart::when_needed)
    Player(schedule, costs, links, Rules::cold_start).play();
  double busy = 0;
  for (const std::vector<TimedAction>& line : simulation.timeline) {
    for (const TimedAction& timed : line) {
      if (!is_compute(timed.action.kind)) continue;
      busy += timed.end - timed.begin;
      simulation.makespan = std::max(simulation.makespan, timed.end);
    }
    simulation.peak_live_activations.push_back(peak_live(line, schedule.trains));
  }
  if (simulation.makespan > 0) {
    simulation.bubble_fraction = 1 - busy / (schedule.shape.stages * simulation.makespan);
  }
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const int declared = schedule.ranks[rank].peak_live_activations;
    const int needed = simulation.peak_live_activations[rank];
    LLAMA3D_EXPECT(declared == needed, "rank {} declares {} live activations and has {}", rank, declared,
                   needed);
  }
  return simulation;
}

}  // namespace llama3d
