#include "io/partial_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <random>
#include <system_error>

namespace llama3d::io {
namespace {

namespace fs = std::filesystem;

/// The process's number alone is not enough: hosts, and containers, that share a disk have the same ones.
std::string partial_name(const fs::path& path) {
  return fmt::format("{}.partial-{}-{:08x}", path.string(), ::getpid(), std::random_device()());
}

/// Renaming would take the place of whatever has the name, a device as well.
void expect_replaceable(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) throw IoError("it is a folder");
  if (status.type() == fs::file_type::none) throw IoError(error.message());
  if (fs::exists(status) && !fs::is_regular_file(status)) throw IoError("it is no regular file");
}

/// What `path` links to, whether or not that is there.
fs::path without_links(fs::path path) {
  std::error_code error;
  while (fs::is_symlink(fs::symlink_status(path, error))) {
    const fs::path target = fs::read_symlink(path, error);
    if (error) throw IoError(error.message());
    path = path.parent_path() / target;
  }
  return path;
}

/// The file that commit() replaces.
fs::path final_file(const fs::path& path) {
  expect_replaceable(path);  // no circle of links either
  return without_links(path);
}

}  // namespace

PartialFile::PartialFile(const fs::path& path) : path_(final_file(path)), partial_(partial_name(path_)) {
  descriptor_ = open_descriptor(partial_, OpenMode::create_new);
}

PartialFile::~PartialFile() {
  if (!descriptor_) return;
  std::error_code ignored;
  fs::remove(partial_, ignored);
}

void PartialFile::commit() {
  sync(descriptor_.get());
  io::rename(partial_, path_);
  descriptor_.reset();
  sync_directory(path_.parent_path());
}

}  // namespace llama3d::io
