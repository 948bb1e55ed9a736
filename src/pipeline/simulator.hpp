#pragma once
// Plays a schedule without computing: proves it complete and free of deadlock, and gives its times and memory.

#include <vector>

#include "pipeline/schedule.hpp"

namespace llama3d {

/// Durations of one action of one global chunk, in any unit. `communication` is the time a transfer takes after it
/// was started; sends do not hold the sender.
struct ActionCosts {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;  ///< a joint backward takes backward_input + backward_weight
  double communication = 0;
};

struct TimedAction {
  Action action;
  double begin = 0, end = 0;
};

struct Simulation {
  double makespan = 0;
  /// Idle share of all ranks' time: 1 - busy / (stages * makespan).
  double bubble_fraction = 0;
  std::vector<std::vector<TimedAction>> timeline;  ///< one list a rank
  std::vector<int> peak_live_activations;          ///< one a rank
};

/// `costs` has one entry for all global chunks, or one for each. Throws ContractViolation, naming rank and action,
/// when the schedule deadlocks, leaves something out, does something twice or receives out of order. Matching is
/// strict: on each channel (activations, gradients) the order of a pair's sends must be the order of its receives,
/// and the schedule must also finish when a send on a channel completes only once its receive has been started and
/// later operations of the same rank on that channel wait for it (NCCL on one stream a channel).
Simulation simulate(const Schedule& schedule, const std::vector<ActionCosts>& costs);

}  // namespace llama3d
