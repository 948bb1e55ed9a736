#pragma once
// One rank's part of a run, allocated and wired: what a step and an evaluation need, and the
// state that files fill.

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "checkpoint/model_state.hpp"
#include "data/dataset.hpp"
#include "parallel/runtime.hpp"
#include "plan/run_plan.hpp"
#include "train/overlap_choice.hpp"

namespace llama3d {

/// Seconds of a step on this rank, by what it did: computing, or standing still for communication.
struct PhaseSeconds {
  double compute = 0, tp = 0, pp = 0, dp = 0, optimizer = 0;
};

/// Something that happened in a step, for a timeline. Lanes of a rank: "compute", one for each communicator,
/// and "waits", when computing stood still for a communication.
struct TimelineSpan {
  std::string lane, name;
  std::int64_t micro_batch = -1;
  double begin = 0, end = 0;  ///< seconds since the step's begin
};

struct StepReport {
  StepResult result;
  PhaseSeconds seconds;
  /// Operations started in the step are counted, those waited for in it timed (a device times a sample of
  /// frequent ones). Gathers of parameters are timed in the step after, where that was queued meanwhile.
  LabelRecords communication;
  std::vector<TimelineSpan> timeline;  ///< of a step that was to have one
  double step_seconds = 0;             ///< since the end of the step before, when that was still under way
};

/// Mean loss over `targets` rows.
struct Evaluation {
  double loss = 0;
  double targets = 0;
};

class Engine {
 public:
  /// Makes what the model gets its parameters from, in front of the store that keeps them, for use on the
  /// run's stream.
  using MakeStore = std::function<std::unique_ptr<ParameterStore>(ParameterStore& resident, Device& device,
                                                                  Stream& stream)>;
  /// Collective: takes all memory and has the job's watchdog look at the communication to the engine's end.
  /// `communicators` are those of the plan's grid, whose context axis has to be of size 1: attention sees
  /// only the tokens of its rank. `runtime` must outlive the engine. `make_store`: another store in front of
  /// the resident one, or none.
  Engine(RankPlan plan, const OptimizerOptions& optimizer, Runtime& runtime,
         std::unique_ptr<GridCommunicators> communicators, const MakeStore& make_store = {});
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues an optimizer step over this rank's micro-batches, plan().pipeline.micro_batches of them. The rows
  /// are free to go on return. At most kStepsUnderWay steps are under way: take the report of one first.
  void queue_step(std::span<const BatchRows> micro_batches, std::int64_t step, double learning_rate,
                  bool with_timeline = false);
  std::size_t steps_under_way() const { return under_way_.size(); }
  /// Of the oldest step under way, when it is done.
  StepReport take_report();
  /// A step by itself, waited for.
  StepResult train_step(std::span<const BatchRows> micro_batches, std::int64_t step, double learning_rate) {
    queue_step(micro_batches, step, learning_rate);
    return take_report().result;
  }
  /// Loss over the micro-batches of all data-parallel ranks, any number of them, the same on every rank. No
  /// step may be under way.
  Evaluation evaluate(std::span<const BatchRows> micro_batches);

  const RankPlan& plan() const { return plan_; }
  const OverlapChoice& overlap() const { return overlap_; }
  /// Of a run that trains.
  DistributedOptimizer& optimizer() { return *optimizer_; }
  /// The weights, to be loaded or initialized; of a run that trains, this rank's slices and the optimizer's.
  ModelState& state() { return *state_; }
  Stage& stage() { return *stage_; }
  PipelineExecutor& executor() { return *executor_; }
  const RankMemory& memory() const { return memory_; }
  GridCommunicators& communicators() { return *communicators_; }
  Device& device() { return runtime_->device; }
  Stream& stream() { return *stream_; }

 private:
  /// The ends of the phases of a step.
  struct StepEvents {
    std::unique_ptr<Event> begin, gradients, end;
  };
  struct StepUnderWay {
    std::int64_t step = 0;
    bool follows = false;                     ///< another step was under way
    double begin = 0;                         ///< by CommunicationLog::now
    CommunicationInterval gradients, update;  ///< the communication of both parts
    std::unique_ptr<SpanRecorder> spans;      ///< of computations, or none
  };
  void register_memory();
  /// Begins to record the step's times and communication, and ends it.
  StepUnderWay begin_record(std::int64_t step, bool with_timeline);
  void end_gradients(StepUnderWay& step);
  void end_update(StepUnderWay step);
  /// A process's first step loads kernels, which only some schedules are proved for.
  const RankSchedule& next_schedule() {
    return std::exchange(first_step_, false) ? plan_.schedule : plan_.later_steps;
  }
  /// Of parameters, when no step is under way that would wait for them. Returns their communication.
  CommunicationInterval finish_gathers();
  static std::vector<TimelineSpan> timeline_of(const StepUnderWay& step, const CommunicationInterval& behind,
                                               const TimeOrigin& origin);

  RankPlan plan_;
  OverlapChoice overlap_;
  Runtime* runtime_;
  RankMemory memory_;  ///< outlives the communicators, which may have registered it
  std::unique_ptr<GridCommunicators> communicators_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<ResidentParameterStore> store_;
  std::unique_ptr<ParameterStore> other_store_;  ///< in front of it, or none
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<PipelineExecutor> executor_;
  std::unique_ptr<DistributedOptimizer> optimizer_;
  std::unique_ptr<ModelState> state_;
  DeviceMemory host_totals_;        ///< (2) fp64
  StepRing<StepEvents, 1> events_;  ///< those of the step before tell when it ended
  bool first_step_ = true;          ///< of this process
  std::deque<StepUnderWay> under_way_;
  Watch watch_;
  FailureGuard guard_{communicators_, runtime_->device};
};

}  // namespace llama3d
