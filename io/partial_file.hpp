#pragma once
// A file on its way to its name. For the files of this room.

#include <filesystem>

#include "io/posix_file.hpp"

namespace llama3d::io {

/// A new, empty file beside `path`, under a name that no other writer has: two programs with one output don't
/// write into each other's file, the last one to finish has the name. Removed unless committed. Where `path`
/// is a link it stays one, and what it leads to is meant.
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

}  // namespace llama3d::io
