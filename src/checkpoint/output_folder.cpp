#include "checkpoint/output_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "base/error.hpp"
#include "base/printable.hpp"
#include "comm/failure.hpp"
#include "io/posix/whole_folder.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_folder(const fs::path& folder, const std::string& reason) {
  throw ConfigurationError(fmt::format(
      "`output_dir {}`: can't be written to ({}); give a folder that can be made", folder.string(), reason));
}

/// Throws IoError with the reason alone.
void make_folders(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path / "checkpoints", error);
  if (error) throw io::IoError(error.message());
}

}  // namespace

void check_output_folder(const fs::path& folder) {
  if (folder.empty()) refuse_folder(folder, "no name given");
  std::error_code error;
  fs::path existing = fs::absolute(folder, error);
  while (!fs::exists(existing, error) && existing.has_relative_path()) existing = existing.parent_path();
  if (!fs::is_directory(existing, error)) refuse_folder(folder, existing.string() + " is no folder");
  for (const fs::path& part : {existing, folder / "checkpoints"})
    if (fs::exists(part, error) && access(part.c_str(), W_OK | X_OK) != 0)
      refuse_folder(folder, "no permission in " + part.string());
}

OutputFolder::OutputFolder(fs::path path, const std::string& host,
                           std::function<void(const std::string&)> note)
    : path_(std::move(path)),
      holder_(fmt::format("process {} on {}", getpid(), host)),
      note_(std::move(note)) {
  std::error_code ignored;
  if (fs::exists(path_, ignored)) lock_or_refuse();
}

void OutputFolder::make() {
  try {
    make_folders(path_);
  } catch (const io::IoError& error) {
    refuse_folder(path_, error.what());
  }
  if (!lock_) lock_or_refuse();
  lock_linked_checkpoints();
}

void OutputFolder::lock_linked_checkpoints() {
  const fs::path checkpoints = path_ / "checkpoints";
  std::error_code ignored;
  if (!fs::is_symlink(checkpoints, ignored)) return;
  try {
    linked_ = FolderLock(checkpoints, holder_);
  } catch (const io::IoError& error) {
    refuse_lock(error.what());
  }
  if (linked_->held_by())
    throw ConfigurationError(fmt::format(
        "`output_dir {}`: another run writes to what its checkpoints link to ({}); wait for its end, "
        "or give another folder",
        path_.string(), printable(*linked_->held_by())));
}

void OutputFolder::refuse_lock(const char* reason) const {
  throw ConfigurationError(fmt::format(
      "`output_dir {}`: {} (other runs could not be kept out); once no run writes there remove the "
      "file, or give another folder",
      path_.string(), reason));
}

void OutputFolder::lock_or_refuse() {
  try {
    lock();
  } catch (const io::IoError& error) {
    refuse_lock(error.what());
  }
  if (taken_) throw ConfigurationError(fmt::format("{}; wait for its end, or give another folder", problem_));
}

void OutputFolder::lock() {
  FolderLock lock(path_, holder_);
  if (lock.held_by()) {
    taken_ = true;
    problem_ = fmt::format("`output_dir {}`: another run writes there ({})", path_.string(),
                           printable(*lock.held_by()));
    return;
  }
  if (!lock.unsupported().empty())
    note_(fmt::format(
        "warning: `output_dir {}`: its file system has no locks ({}): other runs are not kept out",
        path_.string(), lock.unsupported()));
  lock_ = std::move(lock);
  folder_ = io::FileDescriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

OutputFolder::State OutputFolder::keep() {
  if (taken_) return State::taken;
  if (lock_->in_place()) return State::ours;
  const bool same = folder_ && io::leads_to(path_, folder_.get());
  const fs::path now = name_now();
  try {
    make_folders(path_);
    lock();
  } catch (const io::IoError& error) {
    problem_ =
        fmt::format("`output_dir {}`: it is gone, and can't be made anew ({})", path_.string(), error.what());
    return State::unreachable;
  }
  if (taken_) return State::taken;
  const std::string what = same          ? "its lock file was removed"
                           : now.empty() ? "it was removed"
                                         : fmt::format("it was renamed to {}", now.string());
  note_(
      fmt::format("warning: `output_dir {}`: {} while this run writes there: made anew; what follows is "
                  "written there",
                  path_.string(), what));
  return State::ours;
}

fs::path OutputFolder::name_now() const {
  if (!folder_) return {};
  std::error_code ignored;
  const fs::path name = fs::read_symlink(fmt::format("/proc/self/fd/{}", folder_.get()), ignored);
  return fs::is_directory(name, ignored) && io::leads_to(name, folder_.get()) ? name : fs::path();
}

fs::path OutputFolder::refuge() const {
  // Its own name again means that the lock file alone was another run's.
  if (const fs::path now = name_now(); !now.empty() && !io::leads_to(path_, folder_.get())) return now;
  fs::path name;
  int number = 1;
  do {
    name = with_suffix(path_, fmt::format(".rescued-{}", number++).c_str());
  } while (fs::exists(fs::symlink_status(name)));
  return name;
}

OutputFolder::State agreed_state(OutputFolder* output, ControlPlane& control) {
  const auto state = output ? output->keep() : OutputFolder::State::ours;
  return static_cast<OutputFolder::State>(control.all_max(static_cast<std::int64_t>(state)));
}

void throw_output_taken(OutputFolder* output, ControlPlane& control,
                        const std::function<std::string(const fs::path& refuge)>& save) {
  const std::string refuge = control.broadcast(output ? output->refuge().string() : "", 0);
  const std::string saved = save(refuge);
  fail_together(control, [&] {
    throw Error(ExitStatus::failure,
                fmt::format("{}, since the folder or its lock file was renamed or removed under this run; {}",
                            output ? output->problem() : "", saved));
  });
}

}  // namespace llama3d
