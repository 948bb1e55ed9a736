#pragma once
// Pipeline schedules as data: which rank does what, in which order. Pure functions; nothing here computes.

#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

enum class ScheduleKind { gpipe, one_f_one_b, interleaved, zero_bubble };

/// The word of `--pipeline-schedule`: gpipe, 1f1b, interleaved, zero-bubble.
std::string_view name_of(ScheduleKind kind);
/// Throws ConfigurationError listing the valid words.
ScheduleKind parse_schedule_kind(std::string_view word);

enum class ActionKind {
  receive_activation,  ///< start receiving the input of `forward` of the same micro-batch and chunk
  forward,
  send_activation,   ///< start sending the output of that forward to the owner of the next global chunk
  receive_gradient,  ///< start receiving the output gradient of the backward
  backward,          ///< input and weight gradients together
  backward_input,    ///< input gradient only; a backward_weight follows
  send_gradient,     ///< start sending the input gradient to the owner of the previous global chunk
  backward_weight,
};

struct Action {
  ActionKind kind = ActionKind::forward;
  int micro_batch = 0;
  int chunk = 0;  ///< model chunk on this rank, 0 unless interleaved
  bool operator==(const Action&) const = default;
};

std::string to_string(const Action& action);

/// What a schedule is made for. Global chunk g = chunk * stages + stage holds the g-th part of the layers.
struct PipelineShape {
  int stages = 1;
  int chunks = 1;  ///< model chunks a stage; above 1 for interleaved only
  int micro_batches = 1;
  int global_chunks() const { return stages * chunks; }
};

/// The actions of one rank, in order. Receives are placed before the computation they may overlap with; a compute
/// action waits for its own receive.
struct RankSchedule {
  std::vector<Action> actions;
  /// Most micro-batch x chunk pairs whose forward has begun and whose last backward part has not ended: the
  /// activation slots the executor needs.
  int peak_live_activations = 0;
};

struct Schedule {
  ScheduleKind kind = ScheduleKind::one_f_one_b;
  PipelineShape shape;
  std::vector<RankSchedule> ranks;  ///< one a stage
};

/// Throws ConfigurationError where the kind does not fit the shape: chunks above 1 for other than interleaved,
/// interleaved with fewer than 2 chunks, or micro-batches not a multiple of the stages for interleaved.
///  - gpipe: all forwards, then all backwards (Huang et al., 2019).
///  - 1f1b: warm-up of stages - 1 - stage forwards, then one forward, one backward (Narayanan et al., 2019).
///  - interleaved: 1f1b over several chunks a rank (Narayanan et al., 2021).
///  - zero_bubble: ZB-H1, backward split in two, weight parts fill the bubble at no more activation memory
///    than 1f1b on the first stage (Qi et al., 2023).
Schedule make_schedule(ScheduleKind kind, const PipelineShape& shape);

}  // namespace llama3d
