#pragma once
// Which checkpoint to write, keep and resume from. Collective over the job.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "checkpoint/model_state.hpp"
#include "checkpoint/weight_origin.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

/// Where a run stands, besides its tensors.
struct TrainPosition {
  std::int64_t step = 0;              ///< steps done
  std::int64_t consumed_samples = 0;  ///< sequences read so far: the next global sample index
  std::int64_t tokens = 0;            ///< input tokens so far
};

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
  /// `directory` holds the step folders. `keep` newest stay, 0: all. `attributes`: JSON object to record with
  /// each and to compare with what is loaded, see checkpoint_attributes(). `note` tells people of warnings
  /// (rank 0).
  Checkpoints(std::filesystem::path directory, int keep, std::string attributes, ControlPlane& control,
              std::function<void(const std::string&)> note);

  /// Recorded with every checkpoint from here on.
  void set_origin(const WeightOrigin& origin);

  /// For rank 0, before the first save: clears up what killed runs left half written or half replaced. With
  /// `alone` this run does not continue the directory's newest course: checkpoints of steps past `step` get
  /// other names (step_00000100.previous-1), lest a later run resume from them.
  void prepare(std::int64_t step, bool alone);

  /// For rank 0: the run goes on here with a checkpoint of `step` from elsewhere. Until the first save that
  /// step's name is a link to it, so that a run that ends before can be resumed.
  void begin_with(const std::filesystem::path& folder, std::int64_t step);

  /// Saves go to another directory from here on. To be told to every rank.
  void move_to(std::filesystem::path directory) { directory_ = std::move(directory); }

  /// Writes, verifies and commits `step_...`. Returns the folder. Throws CheckpointWriteError on all ranks
  /// when any failed; earlier checkpoints are then untouched, and nothing is left of this one.
  std::filesystem::path save(const TrainPosition& position, ModelState& state);

  /// For rank 0, after a save of `step` that is known to be good: removes what is older than the newest
  /// `keep`.
  void remove_old(std::int64_t step);

  /// Loads the newest complete checkpoint; a damaged one is skipped with a warning that names what is wrong.
  /// Empty when there is none. The slices are filled: gather the parameters afterwards. Throws
  /// CheckpointError when there are checkpoints but none could be loaded, or they can't be listed.
  std::optional<TrainPosition> load_newest(ModelState& state);
  /// Loads this one, and takes over where its weights once came from. Throws CheckpointError when it can't
  /// be, also when it holds weights only; ConfigurationError when it is another model's.
  TrainPosition load(const std::filesystem::path& folder, ModelState& state);
  /// Where the run stood. Throws those of load's errors that are seen without reading tensors. Not
  /// collective.
  TrainPosition check(const std::filesystem::path& folder) const;
  /// The same of load_newest's; one damaged checkpoint of several is none of them.
  void check_newest() const;

 private:
  void write(const std::filesystem::path& final_folder, const TrainPosition& position, ModelState& state);
  /// With why the last of them could not be loaded.
  [[noreturn]] void refuse_all(const std::string& reason) const;

  std::filesystem::path directory_;
  std::filesystem::path link_;  ///< of begin_with()
  int keep_;
  std::string attributes_;
  ControlPlane* control_;
  std::function<void(const std::string&)> note_;
};

}  // namespace llama3d
