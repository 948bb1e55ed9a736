#pragma once
// The folder that a run writes to.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "comm/control_plane.hpp"
#include "io/posix/folder_lock.hpp"

namespace llama3d {

/// Throws ConfigurationError for a folder that can't be written to, as far as can be told without making it.
void check_output_folder(const std::filesystem::path& folder);

/// A run's --output-dir, for rank 0: locked, and looked after while the run lasts.
class OutputFolder {
 public:
  enum class State {
    ours,
    unreachable,  ///< its name leads nowhere, and no folder can be made or locked there
    taken,        ///< its name leads to a folder that another run writes to; stays so
  };

  /// Locks the folder where it is there. `host` names this run's machine to other runs; `note` tells people
  /// of warnings. Throws ConfigurationError where another run is in it, or its lock can't be used.
  OutputFolder(std::filesystem::path path, const std::string& host,
               std::function<void(const std::string&)> note);
  /// Makes the folder where it isn't there, and locks it. Throws ConfigurationError.
  void make();

  /// Tells whether this run may write under the folder's name now. If the folder was renamed or removed
  /// since, or its lock file, it is made anew and locked, with a warning.
  State keep();
  /// Why it is unreachable, or which run has taken it; a sentence that names it.
  const std::string& problem() const { return problem_; }
  /// The place for the checkpoint of a run whose folder is taken: the folder under the name that it has now,
  /// or where it was removed a new one beside it, NAME.rescued-1.
  std::filesystem::path refuge() const;

 private:
  void lock();
  void lock_or_refuse();
  /// Another folder's run may have the same checkpoints.
  void lock_linked_checkpoints();
  [[noreturn]] void refuse_lock(const char* reason) const;
  /// The name of the locked folder; empty where it was removed.
  std::filesystem::path name_now() const;

  std::filesystem::path path_;
  std::string holder_;
  std::function<void(const std::string&)> note_;
  std::optional<FolderLock> lock_, linked_;
  io::FileDescriptor folder_;
  bool taken_ = false;
  std::string problem_;
};

/// The state of the output folder, on every rank. Collective; `output` is rank 0's.
OutputFolder::State agreed_state(OutputFolder* output, ControlPlane& control);

/// Ends a run whose output folder is taken: `save` writes below the refuge and says what it did. Collective;
/// throws CollectiveError.
void throw_output_taken(OutputFolder* output, ControlPlane& control,
                        const std::function<std::string(const std::filesystem::path& refuge)>& save);

}  // namespace llama3d
