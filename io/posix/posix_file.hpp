#pragma once
// Files of the operating system: checked reads, writes, syncs and reservations. For the files of this module.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "base/unique_handle.hpp"

namespace llama3d::io {

/// What a lower layer of this module throws; the public classes turn it into an Error that names the file.
struct IoError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct FileDescriptorTraits {
  using Handle = int;
  static constexpr Handle invalid = -1;
  static void release(Handle descriptor);
};
using FileDescriptor = UniqueHandle<FileDescriptorTraits>;

enum class OpenMode {
  read,
  read_write,
  create,      ///< emptied where it is there
  create_new,  ///< refused where it is there
};

/// All functions throw IoError with the reason the system gives.
FileDescriptor open_descriptor(const std::filesystem::path& path, OpenMode mode);
std::int64_t size_of_file(const std::filesystem::path& path);
/// Reads exactly `size` bytes at `offset`.
void read_at(int descriptor, void* data, std::size_t size, std::int64_t offset);
void write_at(int descriptor, const void* data, std::size_t size, std::int64_t offset);
void truncate(int descriptor, std::int64_t size);
void sync(int descriptor);
/// Syncs a directory, so that the names in it survive a power loss.
void sync_directory(const std::filesystem::path& directory);
/// Whether `path` leads to the open file still: false where it was renamed, removed or replaced. A file
/// system that gives no answer counts as yes. Throws nothing.
bool leads_to(const std::filesystem::path& path, int descriptor);
void rename(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes a whole small file and syncs it.
void write_file(const std::filesystem::path& path, const void* data, std::size_t size);

/// Takes disk space for a file before HDF5 writes to it. HDF5 can neither report nor survive every failed
/// write of its own caches, so the space is there before it starts: a full disk shows here, with nothing half
/// done.
class SpaceReserve {
 public:
  SpaceReserve() = default;
  explicit SpaceReserve(const std::filesystem::path& path);
  /// Makes sure that the file can grow to `size` bytes. With `extend` the file itself becomes at least that
  /// long: then it is never shorter than what its superblock says, whenever the process is killed.
  void ensure(std::int64_t size, bool extend = false);
  int descriptor() const { return descriptor_.get(); }
  /// Cuts the file to `size` bytes where it is longer and gives reserved blocks back. Syncs.
  void finish(std::int64_t size);

 private:
  FileDescriptor descriptor_;
  std::int64_t reserved_ = 0;
};

}  // namespace llama3d::io
