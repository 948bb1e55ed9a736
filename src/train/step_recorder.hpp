#pragma once
// Records of every step: rows of metrics, the progress bar, and the table at the end.

#include <string>
#include <vector>

#include "train/prepared_run.hpp"

namespace llama3d {

/// A step given to the engine, until its report comes.
struct QueuedStep {
  TrainPosition after;
  std::int64_t tokens = 0;  ///< input tokens, without padding
  double learning_rate = 0, data_seconds = 0;
  bool waited_for_data = false;  ///< nothing was under way while its data were read
};

class StepRecorder {
 public:
  /// All outlive it.
  StepRecorder(PreparedRun& run, const StepRange& profile, Device& device, RunLog& log);

  /// Collective: some steps are recorded of every rank.
  void record(const QueuedStep& step, const StepReport& report);
  double last_loss() const { return loss_; }
  /// The table of all steps recorded.
  std::string summary() const;

 private:
  TrainRow row_of(const QueuedStep& step, const StepResult& result, double seconds) const;

  PreparedRun& run_;
  StepRange profile_;
  Device& device_;
  RunLog& log_;
  double loss_ = 0;
  std::vector<double> step_seconds_;
  std::int64_t step_tokens_ = 0;  ///< of the same steps
};

}  // namespace llama3d
