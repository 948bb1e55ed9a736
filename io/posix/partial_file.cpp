#include "io/posix/partial_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <string_view>
#include <system_error>

namespace llama3d::io {
namespace {

namespace fs = std::filesystem;

/// What this host's partial files of a final name begin with. Another host's locks may not be seen here.
std::string partial_prefix(const std::string& final_name) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"unknown"};
  return fmt::format("{}.partial-{}-", final_name, host.data());
}

/// The process's number alone is not enough: containers that share a disk have the same ones.
std::string partial_name(const fs::path& path) {
  return fmt::format("{}{}-{:08x}", partial_prefix(path.string()), ::getpid(), std::random_device()());
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

/// Whether `name` is one that partial_name() gives on this host for a path whose last name is `final_name`.
bool is_partial_name(std::string_view name, const std::string& final_name) {
  const std::string prefix = partial_prefix(final_name);
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  const auto dash = name.find('-');
  const auto all = [](std::string_view text, const char* of) {
    return !text.empty() && text.find_first_not_of(of) == std::string_view::npos;
  };
  return dash != std::string_view::npos && all(name.substr(0, dash), "0123456789") &&
         all(name.substr(dash + 1), "0123456789abcdef") && name.size() - dash - 1 == 8;
}

/// False where another writer has just taken it for abandoned. Without effect where the file system has no
/// locks.
bool mark_as_written(const fs::path& partial, int descriptor) {
  const bool removing = ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  return !removing && leads_to(partial, descriptor);
}

/// Removes it if a lock on it can be taken: its writer ended. The lock is held meanwhile, so that a writer
/// that begins with the file sees it being removed.
void remove_if_abandoned(const fs::path& partial) {
  const FileDescriptor descriptor(::open(partial.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!descriptor || ::flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) return;
  std::error_code ignored;
  fs::remove_all(partial, ignored);
}

/// What killed writers of `path` on this host left. What can't be removed stays: the new file is what counts.
void remove_abandoned(const fs::path& path) {
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string final_name = path.filename().string();
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    if (is_partial_name(entry->path().filename().string(), final_name)) remove_if_abandoned(entry->path());
  }
}

void make_parent(const fs::path& path) {
  std::error_code error;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (error) throw IoError(fmt::format("its folder can't be made: {}", error.message()));
}

/// A new one is not locked for a moment, in which another writer may take it for abandoned.
constexpr int attempts = 10;

}  // namespace

PartialFile::PartialFile(const fs::path& path) : path_(final_file(path)) {
  make_parent(path_);
  remove_abandoned(path_);
  for (int attempt = 0; attempt < attempts; ++attempt) {
    partial_ = partial_name(path_);
    descriptor_ = open_descriptor(partial_, OpenMode::create_new);
    if (mark_as_written(partial_, descriptor_.get())) return;
  }
  throw IoError("what is written is removed all the time");
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

PartialFolder::PartialFolder(const fs::path& path) {
  make_parent(path);
  remove_abandoned(path);
  for (int attempt = 0; attempt < attempts; ++attempt) {
    partial_ = partial_name(path);
    std::error_code error;
    fs::create_directory(partial_, error);
    if (error) throw IoError(error.message());
    descriptor_ = FileDescriptor(::open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!descriptor_) throw IoError(std::strerror(errno));
    if (mark_as_written(partial_, descriptor_.get())) return;
  }
  throw IoError("what is written is removed all the time");
}

PartialFolder::~PartialFolder() {
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
}

}  // namespace llama3d::io
