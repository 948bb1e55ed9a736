#pragma once
// Which checkpoint to write, keep and resume from. Collective over the job.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "mpi/control_plane.hpp"
#include "train/model_state.hpp"

namespace llama3d {

/// Where a run stands, besides its tensors.
struct TrainPosition {
  std::int64_t step = 0;              ///< steps done
  std::int64_t consumed_samples = 0;  ///< sequences read so far: the next global sample index
  std::int64_t tokens = 0;            ///< input tokens so far
};

class Checkpoints {
 public:
  /// `directory` holds the step folders. `keep` newest stay, 0: all. `note` tells people of warnings (rank
  /// 0).
  Checkpoints(std::filesystem::path directory, int keep, ControlPlane& control,
              std::function<void(const std::string&)> note);

  /// Writes, verifies and commits `step_...`, then removes what is older than the newest `keep`.
  /// `attributes`: JSON object, what else to record. Returns the folder. Throws CheckpointWriteError on all
  /// ranks when any failed; earlier checkpoints are then untouched.
  std::filesystem::path save(const TrainPosition& position, const std::string& attributes, ModelState& state);

  /// Loads the newest complete checkpoint; a damaged one is skipped with a warning that names what is wrong.
  /// Empty when there is none. The slices are filled: gather the parameters afterwards. Throws
  /// CheckpointError when there are checkpoints but none could be loaded.
  std::optional<TrainPosition> load_newest(ModelState& state);
  /// Loads this one. Throws CheckpointError when it can't be.
  TrainPosition load(const std::filesystem::path& folder, ModelState& state, bool with_optimizer);

 private:
  void remove_old();

  std::filesystem::path directory_;
  int keep_;
  ControlPlane* control_;
  std::function<void(const std::string&)> note_;
};

}  // namespace llama3d
