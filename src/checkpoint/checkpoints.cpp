#include "checkpoint/checkpoints.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "checkpoint/checkpoint_contents.hpp"
#include "comm/failure.hpp"

namespace llama3d {
namespace {

bool can_be_opened(const std::filesystem::path& folder) {
  try {
    const CheckpointContents checkpoint(folder);
    return true;
  } catch (const CheckpointError&) {
    return false;
  }
}

}  // namespace

UsableCheckpoint first_usable(const std::vector<std::filesystem::path>& folders,
                              const std::function<void(const std::filesystem::path&)>& use,
                              const std::function<void(const std::string& reason)>& refused) {
  UsableCheckpoint found;
  for (const auto& folder : folders) {
    try {
      use(folder);
      found.folder = folder;
      return found;
    } catch (const Error& error) {
      if (error.status() != ExitStatus::checkpoint) throw;
      found.refusal = error.what();
      if (refused) refused(found.refusal);
    }
  }
  return found;
}

Checkpoints::Checkpoints(std::filesystem::path directory, int keep, CheckpointAttributes attributes,
                         ControlPlane& control, std::function<void(const std::string&)> note)
    : directory_(std::move(directory)),
      keep_(keep),
      attributes_(std::move(attributes)),
      control_(&control),
      note_(std::move(note)) {
  LLAMA3D_EXPECT(attributes_.run.has_value(), "checkpoints of no run");
}

void Checkpoints::begin_with(const std::filesystem::path& folder, std::int64_t step) {
  const auto link = directory_ / checkpoint_folder_name(step);
  std::error_code error;
  const auto target = std::filesystem::canonical(folder, error);
  if (!error) std::filesystem::create_directory_symlink(target, link, error);
  if (error)
    note_(fmt::format(
        "warning: {} can't be a link to {} ({}): before the first checkpoint `resume` auto would begin anew",
        link.string(), folder.string(), error.message()));
  else
    link_ = link;
}

void Checkpoints::prepare(std::int64_t step, bool alone) {
  remove_leftovers(directory_);
  if (!alone) return;
  for (const auto& folder : list_checkpoints(directory_)) {
    if (checkpoint_step(folder) <= step) break;
    std::filesystem::path name;
    for (int number = 1; number == 1 || std::filesystem::exists(std::filesystem::symlink_status(name));
         ++number)
      name = fmt::format("{}.previous-{}", folder.string(), number);
    std::filesystem::rename(folder, name);
    note_(fmt::format("{} is now {} (of another run)", folder.string(), name.filename().string()));
  }
}

std::filesystem::path Checkpoints::save(const TrainPosition& position, ModelState& state) {
  const auto final_folder = directory_ / checkpoint_folder_name(position.step);
  try {
    write(final_folder, position, state);
  } catch (const CollectiveError&) {
    if (control_->rank() == 0) abandon_checkpoint(final_folder);
    throw;
  }
  return final_folder;
}

void Checkpoints::write(const std::filesystem::path& final_folder, const TrainPosition& position,
                        ModelState& state) {
  std::string temporary;
  fail_together(*control_, [&] {
    if (control_->rank() == 0) temporary = begin_checkpoint(final_folder).string();
  });
  temporary = control_->broadcast(temporary, 0);
  std::string manifest;
  fail_together(*control_, [&] {
    RankFileWriter file(temporary, control_->rank());
    state.save(file);
    manifest = file.finish();
  });
  const auto manifests = control_->all_gather(manifest);
  fail_together(*control_, [&] {
    if (control_->rank() != 0) return;
    CheckpointAttributes attributes = attributes_;
    attributes.run->position = position;
    write_global_view(temporary, manifests, attributes.to_json());
    commit_checkpoint(temporary, final_folder);
    std::error_code ignored;
    if (!link_.empty() && std::filesystem::is_symlink(link_, ignored))
      std::filesystem::remove(link_, ignored);
  });
}

void Checkpoints::remove_old(std::int64_t step) {
  if (keep_ <= 0) return;
  int kept = 0;
  try {
    // Checkpoints that can't be loaded do not count, nor do later steps: they are there only if they can't.
    for (const auto& folder : list_checkpoints(directory_)) {
      if (checkpoint_step(folder) > step) continue;
      if (kept < keep_)
        kept += can_be_opened(folder) ? 1 : 0;
      else if (std::filesystem::is_directory(folder))
        remove_checkpoint(folder);
    }
  } catch (const Error& error) {
    note_(fmt::format("warning: an old checkpoint stays: {}", error.what()));
  }
}

}  // namespace llama3d
