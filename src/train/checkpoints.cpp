#include "train/checkpoints.hpp"

#include <nlohmann/json.hpp>

namespace llama3d {
namespace {

using nlohmann::json;

TrainPosition position_of(const CheckpointReader& checkpoint) {
  try {
    const json attributes = json::parse(checkpoint.attributes());
    return {attributes.at("step"), attributes.at("consumed_samples"), attributes.at("tokens")};
  } catch (const json::exception& e) {
    throw CheckpointError(
        fmt::format("{}: attributes are incomplete ({})", checkpoint.folder().string(), e.what()));
  }
}

}  // namespace

Checkpoints::Checkpoints(std::filesystem::path directory, int keep, ControlPlane& control,
                         std::function<void(const std::string&)> note)
    : directory_(std::move(directory)), keep_(keep), control_(&control), note_(std::move(note)) {}

std::filesystem::path Checkpoints::save(const TrainPosition& position, const std::string& attributes,
                                        ModelState& state) {
  const auto final_folder = directory_ / checkpoint_folder_name(position.step);
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
    json all = json::parse(attributes);
    all["step"] = position.step;
    all["consumed_samples"] = position.consumed_samples;
    all["tokens"] = position.tokens;
    write_global_view(temporary, manifests, all.dump());
    commit_checkpoint(temporary, final_folder);
    remove_old();
  });
  return final_folder;
}

void Checkpoints::remove_old() {
  if (keep_ <= 0) return;
  const auto all = list_checkpoints(directory_);
  for (std::size_t i = static_cast<std::size_t>(keep_); i < all.size(); ++i) remove_checkpoint(all[i]);
}

TrainPosition Checkpoints::load(const std::filesystem::path& folder, ModelState& state, bool with_optimizer) {
  TrainPosition position;
  fail_together(*control_, [&] {
    const CheckpointReader checkpoint(folder);
    checkpoint.verify(control_->rank(), control_->size());
    position = position_of(checkpoint);
    state.load(checkpoint, with_optimizer);
  });
  return position;
}

std::optional<TrainPosition> Checkpoints::load_newest(ModelState& state) {
  // Rank 0's list is everybody's: a file system may show others an older one.
  std::string names;
  if (control_->rank() == 0)
    for (const auto& folder : list_checkpoints(directory_)) names += folder.string() + '\n';
  names = control_->broadcast(names, 0);
  if (names.empty()) return {};
  std::string reason;
  for (std::size_t begin = 0; begin < names.size();) {
    const std::size_t end = names.find('\n', begin);
    const std::filesystem::path folder = names.substr(begin, end - begin);
    begin = end + 1;
    try {
      return load(folder, state, true);
    } catch (const Error& error) {
      if (error.status() != ExitStatus::checkpoint) throw;
      reason = error.what();
      note_(fmt::format("warning: skipping a checkpoint that can't be loaded: {}", reason));
    }
  }
  throw CheckpointError(
      fmt::format("--resume auto: none of the checkpoints in {} can be loaded (the last one tried: {}); "
                  "start without --resume, or with --resume PATH",
                  directory_.string(), reason));
}

}  // namespace llama3d
