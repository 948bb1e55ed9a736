#pragma once
// Saves a run and takes old checkpoints away, in an output folder that others may touch meanwhile.

#include "train/prepared_run.hpp"

namespace llama3d {

class RunSaver {
 public:
  /// All outlive the saver.
  RunSaver(PreparedRun& run, ControlPlane& control, RunLog& log);

  /// True for the step saved last.
  bool saved(std::int64_t step) const { return last_save_ == step; }
  /// Saves at the run's position; no step may be under way. A failed write is a warning; in the
  /// `last_chance` it is an error. Collective; CollectiveErrors.
  void save(bool last_chance);
  /// A step behind the last save was finite, which shows that what was saved is good: what is older than the
  /// newest to keep goes.
  void prove();
  /// True when another run has taken the output folder; only the first rank can see it.
  bool output_taken() { return run_.output && run_.output->keep() == OutputFolder::State::taken; }
  /// Saves where the output folder is now and ends the run; no step may be under way. Collective; always
  /// throws a CollectiveError.
  void leave_taken_output();

 private:
  void write();

  PreparedRun& run_;
  ControlPlane& control_;
  RunLog& log_;
  bool unproven_ = false;  ///< no step since the last save was finite
  std::int64_t last_save_ = -1;
};

}  // namespace llama3d
