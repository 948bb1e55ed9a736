#pragma once
// Which checkpoints a run writes and keeps, and which one is good enough to go on from.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "checkpoint/checkpoint_attributes.hpp"
#include "checkpoint/model_state.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

/// The first of the folders that `use` does not refuse as a checkpoint (ExitStatus::checkpoint; other errors
/// pass), none where it refuses all, and why it refused the last one. `refused` is told each reason.
struct UsableCheckpoint {
  std::optional<std::filesystem::path> folder;
  std::string refusal;
};
UsableCheckpoint first_usable(const std::vector<std::filesystem::path>& folders,
                              const std::function<void(const std::filesystem::path&)>& use,
                              const std::function<void(const std::string& reason)>& refused = {});

class Checkpoints {
 public:
  /// `directory` holds the step folders. `keep` newest stay, 0: all. `attributes`, a run's, are recorded with
  /// each, with the position of its save. `note` tells people of warnings (rank 0).
  Checkpoints(std::filesystem::path directory, int keep, CheckpointAttributes attributes,
              ControlPlane& control, std::function<void(const std::string&)> note);

  const CheckpointAttributes& attributes() const { return attributes_; }
  /// Recorded with every checkpoint from here on.
  void set_origin(WeightOrigin origin) { attributes_.origin = std::move(origin); }

  /// For rank 0, before the first save: clears up what killed runs left half written or half replaced. With
  /// `alone` this run does not continue the directory's newest course: checkpoints of steps past `step` get
  /// other names (step_00000100.previous-1), lest a later run resume from them.
  void prepare(std::int64_t step, bool alone);

  /// For rank 0: the run goes on here with a checkpoint of `step` from elsewhere. Until the first save that
  /// step's name is a link to it, so that a run that ends before can be resumed.
  void begin_with(const std::filesystem::path& folder, std::int64_t step);

  /// Saves go to another directory from here on. To be told to every rank.
  void move_to(std::filesystem::path directory) { directory_ = std::move(directory); }

  /// Writes, verifies and commits `step_...`. Returns the folder. Collective; CheckpointWriteError on all
  /// ranks when any failed; earlier checkpoints are then untouched, and nothing is left of this one.
  std::filesystem::path save(const TrainPosition& position, ModelState& state);

  /// For rank 0, after a save of `step` that is known to be good: removes what is older than the newest
  /// `keep`.
  void remove_old(std::int64_t step);

 private:
  void write(const std::filesystem::path& final_folder, const TrainPosition& position, ModelState& state);

  std::filesystem::path directory_;
  std::filesystem::path link_;  ///< of begin_with()
  int keep_;
  CheckpointAttributes attributes_;
  ControlPlane* control_;
  std::function<void(const std::string&)> note_;
};

}  // namespace llama3d
