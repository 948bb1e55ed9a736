#pragma once
// Runs a stage through a schedule: any schedule, one executor.

#include <map>
#include <span>
#include <utility>

#include "compute/span_recorder.hpp"
#include "model/stage.hpp"
#include "pipeline/buffer_pool.hpp"
#include "pipeline/schedule.hpp"

namespace llama3d {

/// How many buffers a rank's schedule needs at once.
struct PipelineBufferCounts {
  int slots = 0;   ///< activation slots: forward to the last part of the backward
  int inputs = 0;  ///< chunk inputs: receive, or forward of the first chunk, to the last part of the backward
  int outputs = 0;  ///< chunk outputs under way to the next stage
  int gradients =
      0;  ///< output gradients, received or the loss's, turned into input gradients in place and sent on

  static PipelineBufferCounts of(const RankSchedule& schedule);
  /// Enough for another schedule, too.
  PipelineBufferCounts at_least(const PipelineBufferCounts& other) const;
};

/// Boundary buffers, shards (T/tp, C) each.
struct PipelineBuffers {
  std::vector<Tensor> inputs, outputs, gradients;
  static PipelineBuffers take(Arena& arena, const StageShape& shape, const PipelineBufferCounts& counts);
};

class PipelineExecutor {
 public:
  /// `forward` and `backward` are the pipeline's two channels. All references must outlive the executor.
  PipelineExecutor(const PipelineShape& shape, int stage_index, Stage& stage, Communicator& forward,
                   Communicator& backward, Stream& stream, const PipelineBuffers& buffers);

  /// Runs all micro-batches of a step; `rows` has one entry each. `spans`, when given, gets every
  /// computation.
  void train(const RankSchedule& schedule, std::span<const MicroBatchRows> rows,
             SpanRecorder* spans = nullptr);
  /// Forward only, by a schedule from make_forward_schedule.
  void evaluate(const RankSchedule& schedule, std::span<const MicroBatchRows> rows);

  /// Most activation slots ever held at once.
  int peak_slots() const { return peak_slots_; }

 private:
  /// A micro-batch in a chunk, between its first and its last action.
  struct Live {
    int slot = -1, input = -1, output = -1, gradient = -1;
    SharedWorkHandle receive_activation, receive_gradient;
  };

  void run(const RankSchedule& schedule, std::span<const MicroBatchRows> rows);
  /// Starts one communication action, or two that start together.
  void communicate(std::span<const Action> actions);
  /// Notes who waits for a transfer.
  void started(const Action& action, const SharedWorkHandle& work);
  /// `last`: the schedule has no other computation of the kind in the chunk.
  void compute(const Action& action, std::span<const MicroBatchRows> rows, bool last);
  void forward(const Action& action, std::span<const MicroBatchRows> rows, bool last);
  void backward(const Action& action, bool last);
  void backward_weight(const Action& action, bool last);
  void finish(const Action& action);
  /// Its input and its slot are free for what is queued next.
  void give_back(const Live& live);
  /// The tensor an action sends or receives into, and whom to or from.
  Transfer transfer(const Action& action);
  int acquire_slot();
  bool splits() const { return stage_->layout().shape.split_backward; }

  PipelineShape shape_;
  int stage_index_;
  Stage* stage_;
  Communicator* forward_;
  Communicator* backward_;
  Stream* stream_;
  BufferPool inputs_, outputs_, gradients_;
  std::vector<bool> slot_used_;
  std::map<std::pair<int, int>, Live> live_;  ///< by micro-batch and chunk
  SpanRecorder* spans_ = nullptr;
  bool training_ = false;
  int peak_slots_ = 0;
};

}  // namespace llama3d
