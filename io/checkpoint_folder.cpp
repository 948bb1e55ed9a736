#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#include "io/checkpoint_file.hpp"
#include "io/posix_file.hpp"
#include "io/whole_folder.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr const char* partial_suffix = ".partial";    // being written
constexpr const char* replaced_suffix = ".replaced";  // put_in_place() gives its name to a newer one
constexpr const char* removed_suffix = ".removed";    // being removed

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
  guarded(final_folder, "put in place", [&] { put_in_place(temporary, final_folder); });
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
