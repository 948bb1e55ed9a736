#pragma once
// Pipeline schedules as data: which rank does what, in which order. Pure functions; nothing here computes.
//
// How a schedule is executed (the simulator proves schedules against this):
//  - A rank does its actions in order. Computations follow each other on one stream; a computation waits for
//    its own receive and for nothing else that is received. In a process's first step it may also wait for
//    all that its rank has started before: a GPU that has to load a kernel first ends what it is doing.
//  - Sends and receives are started and not waited for. Activations and gradients have a channel each, a
//    communicator over the stages in which the operations of a rank run one after another: a send completes
//    only when its receive has been started, and until then whatever its rank started later on that channel
//    waits.
//  - A send directly followed by a receive on the same channel starts together with it, as one operation
//    (`starts_together`). In the ring of the interleaved schedule all stages send at once; one after the
//    other, every stage's send would wait behind another's for a receive that is never reached.
//  - `kBuffersPerChannel` buffers a channel are enough for what is received (in use from the start of the
//    receive to the end of its computation), and as many for what is sent (from the start of the computation
//    that produces it to the end of the send), each used in turn: a computation that sends waits for the send
//    before last. The loss's gradient is there from the last chunk's forward on, which waits in its
//    backward's place.

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

/// "send_activation".
std::string_view name_of(ActionKind kind);

struct Action {
  ActionKind kind = ActionKind::forward;
  int micro_batch = 0;
  int chunk = 0;  ///< model chunk on this rank, 0 unless interleaved
  bool operator==(const Action&) const = default;
};

/// "send_activation(micro-batch 3, chunk 0)".
std::string to_string(const Action& action);

bool is_send(ActionKind kind);
bool is_receive(ActionKind kind);
inline bool is_compute(ActionKind kind) {
  return !is_send(kind) && !is_receive(kind);
}

enum class Channel { activation, gradient };
inline constexpr int kBuffersPerChannel = 2;

/// The channel of a send or receive; throws ContractViolation for a computation.
Channel channel_of(ActionKind kind);
/// Whether `next`, the action right after `action` on its rank, is started as one operation with it: a send
/// and a receive of one channel.
bool starts_together(const Action& action, const Action& next);

/// What a schedule is made for. Global chunk g = chunk * stages + stage holds the g-th part of the layers.
struct PipelineShape {
  int stages = 1;
  int chunks = 1;  ///< model chunks a stage; above 1 for interleaved only
  int micro_batches = 1;
  int global_chunks() const { return stages * chunks; }
  int global_chunk(int stage, int chunk) const { return chunk * stages + stage; }
};

/// An action and the stage that does it.
struct PlacedAction {
  int stage = 0;
  Action action;
};

/// The other end of a send or receive that `stage` does: activations go from global chunk g to g + 1,
/// gradients from g + 1 to g. Throws ContractViolation for a computation and beyond the model's ends.
PlacedAction counterpart(const PipelineShape& shape, int stage, const Action& action);

/// When a receive starts: right before the computation that needs it, which waits for the transfer; or one
/// computation ahead, which hides it, but a transfer whose other end is late holds one of a GPU's
/// multiprocessors, and over NVLink that costs more. Ahead is not for first steps.
enum class ReceiveStart { when_needed, ahead };

/// What of `asked` there is: ahead only with as many micro-batches as stages, and not in the ring of the
/// interleaved schedule, where a receive starts right after the last send of its channel, or when needed.
ReceiveStart receive_start_of(ScheduleKind kind, const PipelineShape& shape, ReceiveStart asked);

/// The actions of one rank, in order. A send is placed right after the computation that produces its tensor.
struct RankSchedule {
  std::vector<Action> actions;
  /// Most micro-batch x chunk pairs whose forward has begun and whose last backward part has not ended: the
  /// activation slots the executor needs.
  int peak_live_activations = 0;
};

/// Of each action, whether none of its kind follows in its chunk. After the last computation that adds to the
/// gradients of a chunk these are complete.
std::vector<bool> last_of_kind(const RankSchedule& schedule);

struct Schedule {
  ScheduleKind kind = ScheduleKind::one_f_one_b;
  PipelineShape shape;
  std::vector<RankSchedule> ranks;  ///< one a stage
  bool trains = true;               ///< otherwise there are forwards only, whatever the kind
  ReceiveStart receives = ReceiveStart::when_needed;  ///< see receive_start_of
};

/// Throws ConfigurationError where the kind does not fit the shape: anything below 1, chunks above 1 for
/// other than interleaved, and for interleaved fewer than 2 chunks, fewer than 2 stages (one stage has nobody
/// to exchange with) or micro-batches that are not a multiple of the stages.
void check_schedule(ScheduleKind kind, const PipelineShape& shape);

/// The order of a training step. Throws as check_schedule() does.
///  - gpipe: all forwards, then all backwards (Huang et al., 2019).
///  - 1f1b: warm-up of stages - 1 - stage forwards, then one forward, one backward (Narayanan et al., 2019);
///    twice the warm-up where receives start ahead (eager-1F1B, Zhuang et al., 2023).
///  - interleaved: 1f1b over several chunks a rank (Narayanan et al., 2021).
///  - zero_bubble: ZB-H1, backward split in two, weight parts fill the bubble at no more activation memory
///    than 1f1b on the first stage (Qi et al., 2023).
/// All kinds add up the weight gradients of a chunk in the order of the micro-batches.
Schedule make_schedule(ScheduleKind kind, const PipelineShape& shape,
                       ReceiveStart receives = ReceiveStart::when_needed);

/// The order of an evaluation: every micro-batch forward through every chunk, nothing back, each activation
/// dropped after its forward. With several chunks in the ring of the interleaved schedule, for any number of
/// micro-batches.
Schedule make_forward_schedule(const PipelineShape& shape);

}  // namespace llama3d
