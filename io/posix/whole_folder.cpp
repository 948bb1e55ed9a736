#include "io/posix/whole_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <cerrno>
#include <cstring>

#include "io/posix/posix_file.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

// True when both names now stand for each other's folder; false when the file system can't do it.
bool exchange(const fs::path& a, const fs::path& b) {
#ifdef RENAME_EXCHANGE
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
    throw io::IoError(
        fmt::format("cannot exchange {} and {}: {}", a.string(), b.string(), std::strerror(errno)));
  }
#endif
  return false;
}

}  // namespace

fs::path with_suffix(fs::path folder, const char* suffix) {
  if (!folder.has_filename()) folder = folder.parent_path();
  return folder += suffix;
}

std::string why_no_folder(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return {};
  if (fs::is_regular_file(status)) return "it is a file";
  if (fs::exists(status)) return "it is no folder";
  return status.type() == fs::file_type::not_found ? "there is no such folder" : error.message();
}

void put_in_place(const fs::path& temporary, const fs::path& final_folder) {
  const fs::path parent = with_suffix(final_folder, "").parent_path();
  io::sync_directory(temporary);
  if (!fs::exists(fs::symlink_status(final_folder))) {
    io::rename(temporary, final_folder);
    io::sync_directory(parent);
    return;
  }
  fs::path old = temporary;
  if (!exchange(temporary, final_folder)) {
    old = with_suffix(final_folder, ".replaced");
    fs::remove_all(old);
    io::rename(final_folder, old);
    io::rename(temporary, final_folder);
  }
  io::sync_directory(parent);
  fs::remove_all(old);
}

}  // namespace llama3d
