#pragma once
// Files and folders on their way to their name: NAME.partial-HOST-PID-RANDOM beside it, which no other writer
// has. Each is locked while its writer lives, so that what killed ones left goes when the next writer of the
// same name begins. A file system without locks keeps it.

#include <filesystem>

#include "io/posix/posix_file.hpp"

namespace llama3d::io {

/// A new, empty file beside `path`: two programs with one output don't write into each other's file, the last
/// one to finish has the name. Removed unless committed. Where `path` is a link it stays one, and what it
/// leads to is meant.
class PartialFile {
 public:
  /// Throws IoError where it can't be made, or `path` is there and no regular file.
  explicit PartialFile(const std::filesystem::path& path);
  ~PartialFile();
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  const std::filesystem::path& path() const { return partial_; }
  /// For reading and writing, until commit().
  int descriptor() const { return descriptor_.get(); }
  /// Syncs, and replaces what had the name before. Throws IoError.
  void commit();

 private:
  std::filesystem::path path_, partial_;
  FileDescriptor descriptor_;
};

/// A new, empty folder beside `path`, removed with what is in it unless it was renamed.
class PartialFolder {
 public:
  /// Throws IoError where it can't be made.
  explicit PartialFolder(const std::filesystem::path& path);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::filesystem::path& path() const { return partial_; }

 private:
  std::filesystem::path partial_;
  FileDescriptor descriptor_;
};

}  // namespace llama3d::io
