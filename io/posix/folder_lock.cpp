#include "io/posix/folder_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace llama3d {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
  throw io::IoError(fmt::format("its lock file {} cannot be used: {}", path.string(), reason));
}

io::FileDescriptor open_lock_file(const std::filesystem::path& path) {
  constexpr int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  io::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | flags, 0666));
  // Another user's may be locked without being written to.
  if (!file && (errno == EACCES || errno == EROFS)) file.reset(::open(path.c_str(), O_RDONLY | flags));
  if (!file) refuse(path, errno == ELOOP ? "it is a link" : std::strerror(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) refuse(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) refuse(path, "it is no regular file");
  return file;
}

/// False with errno set where that fails.
bool try_to_lock(int file, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr auto pause = std::chrono::milliseconds(20);
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds);;) {
    if (::flock(file, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK && errno != EINTR) return false;
    if (Clock::now() >= end) {
      errno = EWOULDBLOCK;
      return false;
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder, const std::string& holder, double seconds)
    : path_(folder / ".lock") {
  // A file that was replaced before it was locked keeps nobody out.
  constexpr int attempts = 10;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    file_ = open_lock_file(path_);
    lock(holder, seconds);
    if (held_by_ || in_place()) return;
  }
  refuse(path_, "it is replaced all the time");
}

void FolderLock::lock(const std::string& holder, double seconds) {
  if (try_to_lock(file_.get(), seconds)) {
    // The name is a courtesy: a full disk, or another user's file, leaves it out.
    if (::ftruncate(file_.get(), 0) == 0) (void)!::pwrite(file_.get(), holder.data(), holder.size(), 0);
  } else if (errno == EWOULDBLOCK) {
    std::array<char, 256> name{};
    const auto read = ::pread(file_.get(), name.data(), name.size(), 0);
    held_by_ = std::string(name.data(), read > 0 ? static_cast<std::size_t>(read) : 0);
  } else if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) {
    unsupported_ = std::strerror(errno);
  } else if (errno == EBADF) {
    refuse(path_, "its file system locks only what may be written to; give this user the right to");
  } else {
    refuse(path_, std::strerror(errno));
  }
}

bool FolderLock::in_place() const {
  return io::leads_to(path_, file_.get());
}

}  // namespace llama3d
