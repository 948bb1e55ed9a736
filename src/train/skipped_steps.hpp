#pragma once
// Steps that taught nothing: some are skipped over, many in a row end the run.

#include <cstdint>

#include "comm/control_plane.hpp"
#include "optim/distributed_optimizer.hpp"
#include "options/settings.hpp"
#include "train/metrics_recorder.hpp"
#include "train/run_log.hpp"

namespace llama3d {

class SkippedSteps {
 public:
  /// All outlive it.
  SkippedSteps(const TrainSettings& settings, ControlPlane& control, MetricsRecorder& metrics, RunLog& log);

  /// The result of every step, in order. Throws NumericsError or DataError, on all ranks, for the last of
  /// settings.max_skipped_steps in a row.
  void count(std::int64_t step, const StepResult& result);
  /// The steps counted last whose loss or gradient was not finite.
  std::int64_t in_a_row() const { return broken_; }
  /// Throws NumericsError, on all ranks, where the last steps of a run, to `step`, were skipped: it has no
  /// result.
  void expect_finite_end(std::int64_t step) const;

 private:
  void count_empty(std::int64_t step, const StepResult& result);
  void count_broken(std::int64_t step, const StepResult& result);
  void tell(std::int64_t step, const std::string& text);

  const TrainSettings& settings_;
  ControlPlane& control_;
  MetricsRecorder& metrics_;
  RunLog& log_;
  std::int64_t broken_ = 0, empty_ = 0;
};

}  // namespace llama3d
