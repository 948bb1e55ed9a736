#pragma once
// The steps of a run, from where it stands to its last one or to a signal.

#include <deque>
#include <exception>
#include <optional>
#include <vector>

#include "optim/learning_rate.hpp"
#include "train/prepared_run.hpp"
#include "train/run_saver.hpp"
#include "train/skipped_steps.hpp"
#include "train/step_recorder.hpp"
#include "train/trainer.hpp"

namespace llama3d {

class StepLoop {
 public:
  /// All outlive the loop. The run is not done.
  StepLoop(PreparedRun& run, Runtime& runtime, RunLog& log);

  /// Steps, validates and saves. Collective; CollectiveErrors.
  TrainResult run();

 private:
  /// This rank's part of a step.
  struct StepData {
    std::vector<BatchRows> rows;
    std::exception_ptr error;  ///< that kept them from being read
    double seconds = 0;
  };

  /// False when the job was told to stop instead.
  bool step();
  StepData read_data() const;
  /// Signals and unreadable data reach single ranks: all have to know before the step's collectives.
  bool agreed_to_step(const StepData& data);
  void queue_step(const StepData& data);
  /// Takes the reports of steps until no more than `left` are under way.
  void finish_steps(std::size_t left);
  void begin_profiling(std::int64_t step);
  void end_profiling();
  void validate();
  void save();
  /// Saves what came of the steps since the first one here.
  void end_on_signal();
  void finish();

  PreparedRun& run_;
  Runtime& runtime_;
  RunLog& log_;
  TrainPosition& position_;  ///< behind the last step queued
  const std::int64_t first_step_;
  LearningRateSchedule learning_rate_;
  StepRange profile_;
  StepRecorder recorder_;
  SkippedSteps skipped_;
  RunSaver saver_;
  std::deque<QueuedStep> queued_;
  bool signalled_ = false, profiling_ = false;
  std::int64_t last_validation_ = -1;
  std::optional<double> valid_loss_;
};

}  // namespace llama3d
