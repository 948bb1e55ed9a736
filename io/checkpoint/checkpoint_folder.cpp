#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <system_error>
#include <utility>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/posix/posix_file.hpp"
#include "io/posix/whole_folder.hpp"

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

[[noreturn]] void fail_listing(const fs::path& directory, const std::string& reason) {
  throw CheckpointError(
      fmt::format("checkpoints in {} cannot be listed ({}); check the folder and its file system",
                  directory.string(), reason));
}

/// What lies in `directory`. Only one that does not exist holds nothing: any other may hold checkpoints.
std::vector<fs::directory_entry> entries_of(const fs::path& directory) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    entries.push_back(*entry);
  if (error && error != std::errc::no_such_file_or_directory) fail_listing(directory, error.message());
  return entries;
}

fs::path without_suffix(fs::path folder) {
  return folder.replace_extension();
}

/// The old folder of a replacement that was cut off between its two renames: nothing has its name since.
bool is_replaced(const fs::path& folder) {
  std::error_code ignored;
  return folder.extension() == replaced_suffix &&
         !fs::exists(fs::symlink_status(without_suffix(folder), ignored));
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

void abandon_checkpoint(const fs::path& final_folder) {
  std::error_code ignored;
  fs::remove_all(with_suffix(final_folder, partial_suffix), ignored);
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
  std::vector<std::pair<std::int64_t, fs::path>> found;
  for (const auto& entry : entries_of(directory)) {
    const bool replaced = is_replaced(entry.path());
    const std::int64_t step = checkpoint_step(replaced ? without_suffix(entry.path()) : entry.path());
    if (step >= 0) found.emplace_back(step, entry.path());
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  std::vector<fs::path> folders;
  for (auto& [step, folder] : found) folders.push_back(std::move(folder));
  return folders;
}

void remove_leftovers(const fs::path& directory) {
  guarded(directory, "cleaned up", [&] {
    for (const auto& entry : entries_of(directory)) {
      const std::string suffix = entry.path().extension().string();
      const bool ours = suffix == partial_suffix || suffix == replaced_suffix || suffix == removed_suffix;
      const fs::path final_folder = without_suffix(entry.path());
      if (!ours || checkpoint_step(final_folder) < 0) continue;
      if (is_replaced(entry.path()))
        io::rename(entry.path(), final_folder);
      else
        fs::remove_all(entry.path());
    }
  });
}

}  // namespace llama3d
