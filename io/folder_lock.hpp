#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/posix_file.hpp"

namespace llama3d {

/// Keeps other processes out of a folder while it lives, as far as they ask: the file `.lock` in it, locked.
/// The system lets go of it when the process ends, however that comes; the file stays.
class FolderLock {
 public:
  /// `holder` names this process for others. Where the file system has no locks, nobody is kept out.
  FolderLock(const std::filesystem::path& folder, const std::string& holder);
  /// What the process said that keeps this one out; none when this one has the lock.
  const std::optional<std::string>& held_by() const { return held_by_; }

 private:
  io::FileDescriptor file_;
  std::optional<std::string> held_by_;
};

}  // namespace llama3d
