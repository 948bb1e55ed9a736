#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/posix/posix_file.hpp"

namespace llama3d {

/// Keeps other processes out of a folder while it lives, as far as they ask: the file `.lock` in it, locked.
/// The system lets go of it when the process ends, however that comes; the file stays. One that another user
/// made serves as well.
class FolderLock {
 public:
  /// Waits so many seconds for a process that may just be ending: a launcher can return before its last rank
  /// is gone.
  static constexpr double patience = 2;

  /// `holder` names this process for others. Throws io::IoError, naming the file, where it can't be opened,
  /// is no regular file, or can't be locked though its file system has locks.
  FolderLock(const std::filesystem::path& folder, const std::string& holder, double seconds = patience);
  /// What the process said that keeps this one out; none when this one has the lock.
  const std::optional<std::string>& held_by() const { return held_by_; }
  /// Why the file system has no locks, so that nobody is kept out; empty where it has.
  const std::string& unsupported() const { return unsupported_; }
  /// Whether the folder's name still leads to the locked file. A file system that gives no answer counts as
  /// yes.
  bool in_place() const;

 private:
  void lock(const std::string& holder, double seconds);

  std::filesystem::path path_;
  io::FileDescriptor file_;
  std::optional<std::string> held_by_;
  std::string unsupported_;
};

}  // namespace llama3d
