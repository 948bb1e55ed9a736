#pragma once
// Plays a schedule without computing: proves it complete and free of deadlock, and gives its times and
// memory.

#include <string>
#include <vector>

#include "pipeline/schedule.hpp"

namespace llama3d {

/// Durations of one action of one global chunk, in any unit. `communication` is the time a transfer from this
/// chunk takes after both its ends were started; it holds neither rank's computations.
struct ActionCosts {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;  ///< a joint backward takes backward_input + backward_weight
  double communication = 0;
};

/// A send or receive begins when its channel comes to it and ends with the transfer.
struct TimedAction {
  Action action;
  double begin = 0, end = 0;
};

struct Simulation {
  double makespan = 0;
  /// Idle share of all ranks' time: 1 - busy / (stages * makespan).
  double bubble_fraction = 0;
  std::vector<std::vector<TimedAction>> timeline;  ///< one list a rank, in the order of its actions
  std::vector<int> peak_live_activations;          ///< one a rank
};

/// `costs` has one entry for all global chunks, or one for each; none may be negative. Throws
/// ContractViolation, naming rank and action, when the schedule deadlocks, leaves something out, does
/// something twice, receives out of order, runs out of receive buffers, or declares another number of live
/// activations than it has. Matching is strict: on each channel the order of a pair's sends must be the order
/// of its receives. The schedule must finish when a send completes at once (buffered, as small MPI
/// messages) and by the rules of schedule.hpp (NCCL on one stream a channel), whether computations wait for
/// all that was started before (unless its receives start ahead) or not; the times are those when they do
/// not.
Simulation simulate(const Schedule& schedule, const std::vector<ActionCosts>& costs);

/// The computations as text, one line a rank, time to the right: F forward, B backward (I and W when split),
/// each with its micro-batch and, where there are several, the chunk as a letter; dots are idle. The shortest
/// computation is one label wide. Meant for a few dozen computations:
///
///     rank 0 |F0 F1 ......B0====F2 B1====...B2====|
///     rank 1 |...F0 B0====F1 B1====F2 B2====......|
std::string draw(const Simulation& simulation);

}  // namespace llama3d
