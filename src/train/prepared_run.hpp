#pragma once
// A run that is set up: all that can be refused or can fail before the first step.

#include <memory>
#include <optional>

#include "checkpoint/checkpoints.hpp"
#include "checkpoint/output_folder.hpp"
#include "parallel/runtime.hpp"
#include "train/batches.hpp"
#include "train/engine.hpp"
#include "train/metrics_recorder.hpp"
#include "train/run_log.hpp"
#include "train/run_shape.hpp"

namespace llama3d {

struct PreparedRun {
  TrainSettings settings;
  RunShape shape;
  std::optional<TrainingBatches> batches;
  std::unique_ptr<Engine> engine;        ///< with the state to go on from
  std::unique_ptr<OutputFolder> output;  ///< locked; the first rank's
  std::optional<Checkpoints> checkpoints;
  std::unique_ptr<MetricsRecorder> metrics;  ///< none where nothing is left to do
  TrainPosition position;                    ///< behind the last step queued

  /// Then nothing is written.
  bool done() const { return position.step >= settings.steps; }
};

/// Checks, locks, decides how the run starts, plans, allocates, loads and opens the output, in this order, so
/// that a run that can't start leaves nothing behind. The log outlives the run. Collective; CollectiveErrors.
PreparedRun prepare_run(const TrainSettings& settings, Runtime& runtime, RunLog& log);

}  // namespace llama3d
