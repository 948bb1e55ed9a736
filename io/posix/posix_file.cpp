#include "io/posix/posix_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace llama3d::io {
namespace {

[[noreturn]] void throw_errno(const std::string& problem, int error = errno) {
  throw IoError(fmt::format("{}: {}", problem, std::strerror(error)));
}

// A write of more than 2 GiB is cut short by Linux.
constexpr std::size_t largest_transfer = std::size_t{1} << 30;

}  // namespace

void FileDescriptorTraits::release(Handle descriptor) {
  ::close(descriptor);
}

FileDescriptor open_descriptor(const std::filesystem::path& path, OpenMode mode) {
  int flags = O_RDONLY;
  if (mode == OpenMode::read_write) flags = O_RDWR;
  if (mode == OpenMode::create) flags = O_RDWR | O_CREAT | O_TRUNC;
  if (mode == OpenMode::create_new) flags = O_RDWR | O_CREAT | O_EXCL;
  FileDescriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (!descriptor) throw_errno("cannot open");
  return descriptor;
}

std::int64_t size_of_file(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw_errno("cannot look at the file");
  if (!S_ISREG(status.st_mode)) throw IoError("not a regular file");
  return status.st_size;
}

void read_at(int descriptor, void* data, std::size_t size, std::int64_t offset) {
  auto* bytes = static_cast<std::byte*>(data);
  while (size > 0) {
    const ssize_t count = ::pread(descriptor, bytes, std::min(size, largest_transfer), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("read failed");
    if (count == 0) throw IoError("the file ends too early");
    bytes += count;
    size -= static_cast<std::size_t>(count);
    offset += count;
  }
}

void write_at(int descriptor, const void* data, std::size_t size, std::int64_t offset) {
  const auto* bytes = static_cast<const std::byte*>(data);
  while (size > 0) {
    const ssize_t count = ::pwrite(descriptor, bytes, std::min(size, largest_transfer), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("write failed");
    if (count == 0) throw IoError("write failed: the system took no bytes");
    bytes += count;
    size -= static_cast<std::size_t>(count);
    offset += count;
  }
}

void truncate(int descriptor, std::int64_t size) {
  if (::ftruncate(descriptor, size) != 0) throw_errno("cannot set the file's size");
}

void sync(int descriptor) {
  if (::fsync(descriptor) != 0) throw_errno("sync failed");
}

void sync_directory(const std::filesystem::path& directory) {
  const auto path = directory.empty() ? std::filesystem::path(".") : directory;
  const FileDescriptor descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) throw_errno(fmt::format("cannot open the folder {}", path.string()));
  // Some network file systems sync names by themselves and refuse the call.
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    throw_errno(fmt::format("cannot sync the folder {}", path.string()));
  }
}

bool leads_to(const std::filesystem::path& path, int descriptor) {
  struct stat opened {};
  struct stat named {};
  if (::fstat(descriptor, &opened) != 0) return true;
  if (::stat(path.c_str(), &named) != 0) return errno != ENOENT && errno != ENOTDIR;
  return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

void rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw_errno(fmt::format("cannot rename {} to {}", from.string(), to.string()));
  }
}

void write_file(const std::filesystem::path& path, const void* data, std::size_t size) {
  const FileDescriptor descriptor = open_descriptor(path, OpenMode::create);
  write_at(descriptor.get(), data, size, 0);
  sync(descriptor.get());
}

SpaceReserve::SpaceReserve(const std::filesystem::path& path)
    : descriptor_(open_descriptor(path, OpenMode::read_write)) {}

void SpaceReserve::ensure(std::int64_t size, bool extend) {
  struct stat status {};
  if (::fstat(descriptor_.get(), &status) != 0) throw_errno("cannot look at the file");
  if (size <= reserved_ && (!extend || size <= status.st_size)) return;
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      static_cast<std::uint64_t>(size) > limit.rlim_cur) {
    throw_errno("no room to write", EFBIG);
  }
  const std::int64_t begin = std::min<std::int64_t>(reserved_, status.st_size);
  if (::fallocate(descriptor_.get(), extend ? 0 : FALLOC_FL_KEEP_SIZE, begin, size - begin) != 0) {
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR) throw_errno("no room to write");
    // Without fallocate the free space is the best that can be known.
    struct statvfs space {};
    const std::int64_t missing = size - std::max<std::int64_t>(status.st_size, reserved_);
    if (::fstatvfs(descriptor_.get(), &space) == 0 &&
        missing > static_cast<std::int64_t>(space.f_bavail * space.f_frsize)) {
      throw_errno("no room to write", ENOSPC);
    }
    if (extend && size > status.st_size) truncate(descriptor_.get(), size);
  }
  reserved_ = std::max(reserved_, size);
}

void SpaceReserve::finish(std::int64_t size) {
  struct stat status {};
  if (::fstat(descriptor_.get(), &status) != 0) throw_errno("cannot look at the file");
  // Setting the size that the file already has gives blocks past its end back.
  truncate(descriptor_.get(), std::min<std::int64_t>(size, status.st_size));
  sync(descriptor_.get());
  reserved_ = 0;
}

}  // namespace llama3d::io
