#include "train/checkpoints.hpp"

#include <nlohmann/json.hpp>

namespace llama3d {
namespace {

using nlohmann::json;

/// Members of a model's configuration that decide which tensors there are and what they mean. The others may
/// change when a run starts from the weights alone.
bool decides_tensors(const std::string& key) {
  return key.starts_with("num_") || key.ends_with("_size") || key == "head_dim" ||
         key == "tie_word_embeddings";
}

void expect_model(const CheckpointReader& checkpoint, const json& theirs, const json& ours,
                  bool with_optimizer) {
  for (const auto& [key, value] : ours.items())
    if ((with_optimizer || decides_tensors(key)) && theirs.contains(key) && theirs[key] != value)
      throw ConfigurationError(fmt::format(
          "checkpoint {} is of another model ({} is {}, here {}); give the --model it was made with",
          checkpoint.folder().string(), key, theirs[key].dump(), value.dump()));
}

/// The checkpoint's attributes, once they agree with those of this run.
json expect_attributes(const CheckpointReader& checkpoint, const std::string& expected, bool with_optimizer) {
  try {
    const json theirs = json::parse(checkpoint.attributes()), ours = json::parse(expected);
    const auto model = [](const json& attributes) {
      return json::parse(attributes.at("model_config").get<std::string>());
    };
    expect_model(checkpoint, model(theirs), model(ours), with_optimizer);
    return theirs;
  } catch (const json::exception& e) {
    throw CheckpointError(
        fmt::format("checkpoint {} cannot be loaded (its attributes are incomplete: {}); use another one",
                    checkpoint.folder().string(), e.what()));
  }
}

/// What a resumed run may change, but hardly wants to.
void warn_of_other_samples(const json& theirs, const json& ours,
                           const std::function<void(const std::string&)>& note) {
  for (const char* name : {"seed", "sequence"})
    if (theirs.contains(name) && theirs[name] != ours[name])
      note(fmt::format(
          "warning: {} was {} and is {} now: the samples that follow are others than they would be", name,
          theirs[name].dump(), ours[name].dump()));
}

TrainPosition position_of(const json& attributes) {
  return {attributes.value("step", std::int64_t{0}), attributes.value("consumed_samples", std::int64_t{0}),
          attributes.value("tokens", std::int64_t{0})};
}

}  // namespace

Checkpoints::Checkpoints(std::filesystem::path directory, int keep, std::string attributes,
                         ControlPlane& control, std::function<void(const std::string&)> note)
    : directory_(std::move(directory)),
      keep_(keep),
      attributes_(std::move(attributes)),
      control_(&control),
      note_(std::move(note)) {}

void Checkpoints::prepare(std::int64_t step, bool alone) {
  remove_leftovers(directory_);
  if (!alone) return;
  for (const auto& folder : list_checkpoints(directory_)) {
    if (checkpoint_step(folder) <= step) break;
    std::filesystem::path name;
    for (int number = 1; number == 1 || std::filesystem::exists(name); ++number)
      name = fmt::format("{}.previous-{}", folder.string(), number);
    std::filesystem::rename(folder, name);
    note_(fmt::format("{} is now {} (of another run)", folder.string(), name.filename().string()));
  }
}

std::filesystem::path Checkpoints::save(const TrainPosition& position, ModelState& state) {
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
    json all = json::parse(attributes_);
    all["step"] = position.step;
    all["consumed_samples"] = position.consumed_samples;
    all["tokens"] = position.tokens;
    write_global_view(temporary, manifests, all.dump());
    commit_checkpoint(temporary, final_folder);
    remove_old(position.step);
  });
  return final_folder;
}

void Checkpoints::remove_old(std::int64_t step) {
  if (keep_ <= 0) return;
  int kept = 0;
  try {
    // Later steps are there only where they could not be loaded: they do not count.
    for (const auto& folder : list_checkpoints(directory_))
      if (checkpoint_step(folder) <= step && ++kept > keep_) remove_checkpoint(folder);
  } catch (const Error& error) {
    note_(fmt::format("warning: an old checkpoint stays: {}", error.what()));
  }
}

void Checkpoints::check(const std::filesystem::path& folder, bool with_optimizer) const {
  expect_attributes(CheckpointReader(folder), attributes_, with_optimizer);
}

TrainPosition Checkpoints::load(const std::filesystem::path& folder, ModelState& state, bool with_optimizer) {
  TrainPosition position;
  fail_together(*control_, [&] {
    const CheckpointReader checkpoint(folder);
    const json attributes = expect_attributes(checkpoint, attributes_, with_optimizer);
    checkpoint.verify(control_->rank(), control_->size());
    position = position_of(attributes);
    state.load(checkpoint, with_optimizer);
    if (with_optimizer) warn_of_other_samples(attributes, json::parse(attributes_), note_);
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
  fail_together(*control_, [&] {
    throw CheckpointError(
        fmt::format("--resume auto: none of the checkpoints in {} can be loaded (the last one tried: {}); "
                    "start without --resume, or with --resume PATH",
                    directory_.string(), reason));
  });
  return {};  // not reached
}

}  // namespace llama3d
