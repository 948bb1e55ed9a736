#pragma once
// How a run starts: decided once, on the first rank, from the settings and what is in the folders.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_contents.hpp"
#include "comm/control_plane.hpp"
#include "options/settings.hpp"

namespace llama3d {

struct StartDecision {
  enum class Kind : std::uint8_t {
    fresh,             ///< random weights
    load,              ///< the weights of a checkpoint or a Hugging Face folder, and nothing else of it
    resume,            ///< goes on in its output folder, from one of the checkpoints there
    resume_elsewhere,  ///< goes on from another folder's checkpoint, and begins anew in its output folder
  };
  Kind kind = Kind::fresh;
  /// The folders to read. In `resume` the others, which are older, stand in for a first one whose data prove
  /// damaged.
  std::vector<std::filesystem::path> folders;
  ModelConfig model;                ///< of the run
  bool automatic = false;           ///< `--resume auto` decided
  std::vector<std::string> notes;   ///< how it came to be, for people; the first rank's
  std::vector<std::string> doubts;  ///< whether it is what they want; likewise

  /// The first of the folders, opened and checked but for checksums; on the rank that decided.
  std::unique_ptr<CheckpointContents> checkpoint;  ///< to resume from
  std::unique_ptr<WeightSource> weights;           ///< to load

  bool resumes() const { return kind == Kind::resume || kind == Kind::resume_elsewhere; }
  /// The output folder's metrics are this run's and stay. An automatic start finds its own run there, or
  /// none.
  bool in_place() const { return automatic || kind == Kind::resume; }
};

/// Reads headers, no tensors. Throws what keeps the run from starting that way: ConfigurationError for what
/// does not fit the model, and where nothing is left to do for a checkpoint that was named; CheckpointError
/// or DataError for what can't be read.
StartDecision decide_start(const TrainSettings& settings);

/// The first rank's decision, on every rank: a file system may show others an older folder. Collective;
/// CollectiveErrors.
StartDecision agreed_start(const TrainSettings& settings, ControlPlane& control);

/// Throws CheckpointError: an automatic start found checkpoints, and none can be loaded. The last one failed
/// for `reason`.
[[noreturn]] void refuse_all_checkpoints(const TrainSettings& settings, const std::string& reason);

/// A warning about a checkpoint that is passed over.
std::string skipped_checkpoint(const std::string& reason);

}  // namespace llama3d
