#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include "io/checkpoint_file.hpp"
#include "io/posix_file.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr const char* partial_suffix = ".partial";    // being written
constexpr const char* replaced_suffix = ".replaced";  // a newer one takes its name
constexpr const char* removed_suffix = ".removed";    // being removed

fs::path with_suffix(fs::path folder, const char* suffix) {
  if (!folder.has_filename()) folder = folder.parent_path();
  return folder += suffix;
}

template <class Action>
auto guarded(const fs::path& folder, const char* what, Action&& action) {
  std::string reason;
  try {
    return action();
  } catch (const io::IoError& error) {
    reason = error.what();
  } catch (const fs::filesystem_error& error) {
    reason = error.what();
  }
  throw CheckpointWriteError(fmt::format("checkpoint {} cannot be {} ({}); check the folder's file system",
                                         folder.string(), what, reason));
}

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

std::string checkpoint_folder_name(std::int64_t step) {
  return fmt::format("step_{:08d}", step);
}

std::int64_t checkpoint_step(const fs::path& folder) {
  const std::string name =
      folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
  const std::string_view prefix = "step_";
  if (name.compare(0, prefix.size(), prefix) != 0) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, step);
  return error == std::errc() && stop == end && step >= 0 ? step : -1;
}

fs::path begin_checkpoint(const fs::path& final_folder) {
  return guarded(final_folder, "begun", [&] {
    const fs::path temporary = with_suffix(final_folder, partial_suffix);
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    return temporary;
  });
}

void commit_checkpoint(const fs::path& temporary, const fs::path& final_folder) {
  LLAMA3D_EXPECT(fs::exists(temporary / "checkpoint.h5"), "{} has no global view yet", temporary.string());
  guarded(final_folder, "put in place", [&] {
    const fs::path parent = with_suffix(final_folder, "").parent_path();
    io::sync_directory(temporary);
    if (!fs::exists(final_folder)) {
      io::rename(temporary, final_folder);
      io::sync_directory(parent);
      return;
    }
    fs::path old = temporary;
    if (!exchange(temporary, final_folder)) {
      // list_checkpoints() knows this name too, should the process end between the two.
      old = with_suffix(final_folder, replaced_suffix);
      fs::remove_all(old);
      io::rename(final_folder, old);
      io::rename(temporary, final_folder);
    }
    io::sync_directory(parent);
    fs::remove_all(old);
  });
}

void remove_checkpoint(const fs::path& folder) {
  guarded(folder, "removed", [&] {
    const fs::path removed = with_suffix(folder, removed_suffix);
    fs::remove_all(removed);
    io::rename(folder, removed);
    io::sync_directory(removed.parent_path());
    fs::remove_all(removed);
  });
}

std::vector<fs::path> list_checkpoints(const fs::path& directory) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    std::error_code ignored;
    if (!entry.is_directory(ignored)) continue;
    fs::path path = entry.path();
    // The old folder of a replacement that was cut off between its two renames.
    if (path.extension() == replaced_suffix) {
      fs::path final_folder = path;
      final_folder.replace_extension();
      if (checkpoint_step(final_folder) < 0 || fs::exists(final_folder, ignored)) continue;
      fs::rename(path, final_folder, ignored);
      if (ignored) continue;
      path = final_folder;
    }
    if (checkpoint_step(path) >= 0) folders.push_back(path);
  }
  std::sort(folders.begin(), folders.end(),
            [](const fs::path& a, const fs::path& b) { return checkpoint_step(a) > checkpoint_step(b); });
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  return folders;
}

void remove_leftovers(const fs::path& directory) {
  list_checkpoints(directory);  // gives an interrupted replacement its name back
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    fs::path final_folder = entry.path();
    const std::string suffix = final_folder.extension().string();
    final_folder.replace_extension();
    const bool ours = suffix == partial_suffix || suffix == replaced_suffix || suffix == removed_suffix;
    if (ours && checkpoint_step(final_folder) >= 0) leftovers.push_back(entry.path());
  }
  guarded(directory, "cleaned up", [&] {
    for (const auto& leftover : leftovers) fs::remove_all(leftover);
  });
}

}  // namespace llama3d
