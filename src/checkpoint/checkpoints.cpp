#include "checkpoint/checkpoints.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.hpp"
#include "base/printable.hpp"
#include "checkpoint/tokenizer_name.hpp"
#include "checkpoint/weight_source.hpp"
#include "comm/failure.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const CheckpointReader& checkpoint, const std::string& reason,
                         const char* advice = "use another one") {
  throw CheckpointError(
      fmt::format("checkpoint {} cannot be resumed ({}); {}", checkpoint.folder().string(), reason, advice));
}

ModelConfig model_of(const json& attributes, const CheckpointReader& checkpoint) {
  try {
    return parse_model_config(json_text_in(attributes, "model_config"), "model_config");
  } catch (const Error& error) {
    refuse(checkpoint, fmt::format("its attributes are damaged: {}", error.what()));
  }
}

WeightOrigin origin_of(const json& attributes, const CheckpointReader& checkpoint) {
  const json* origin = find_json_member(attributes, "huggingface");
  if (!origin) return {};
  try {
    return WeightOrigin::parse(origin->dump(), "huggingface");
  } catch (const DataError& error) {
    refuse(checkpoint, fmt::format("its attributes are damaged: {}", error.what()));
  }
}

void expect_tensors(const CheckpointReader& checkpoint, const ModelConfig& model) {
  const auto& datasets = checkpoint.datasets();
  const bool has_optimizer = std::any_of(datasets.begin(), datasets.end(), [](const DatasetInfo& info) {
    return info.name.starts_with("/optimizer/");
  });
  for (const char* group : {"/model/", "/optimizer/exp_avg/", "/optimizer/exp_avg_sq/"})
    for (const WeightTensor& tensor : model_tensors(model)) {
      const DatasetInfo* info = checkpoint.find(group + tensor.name);
      if (!info && !has_optimizer)
        refuse(checkpoint, "it holds weights only, no state of an optimizer", "start from it with --load");
      if (!info) refuse(checkpoint, fmt::format("no {}{}", group, tensor.name));
      if (info->shape != tensor.shape)
        refuse(checkpoint, fmt::format("{} is {}, the model's is {}", info->name,
                                       fmt::join(info->shape, " x "), fmt::join(tensor.shape, " x ")));
    }
}

/// Throws JsonError.
TrainPosition position_of(const json& attributes) {
  return {json_integer_in(attributes, "step", 0), json_integer_in(attributes, "consumed_samples", 0),
          json_integer_in(attributes, "tokens", 0)};
}

/// The checkpoint's attributes, once they and its tensors are those of this run's model.
json expect_same_model(const CheckpointReader& checkpoint, const std::string& attributes) {
  try {
    json theirs = parse_json(checkpoint.attributes());
    const ModelConfig model = model_of(parse_json(attributes), checkpoint);
    for (const ConfigDifference& difference : differences(model_of(theirs, checkpoint), model))
      throw ConfigurationError(fmt::format(
          "checkpoint {} is of another model ({} is {}, here {}); give the --model it was made with",
          checkpoint.folder().string(), difference.key, difference.left, difference.right));
    expect_tensors(checkpoint, model);
    position_of(theirs);
    origin_of(theirs, checkpoint);
    return theirs;
  } catch (const JsonError& e) {
    refuse(checkpoint, fmt::format("its attributes are damaged: {}", e.what()));
  }
}

/// A Hugging Face folder in the place of a checkpoint.
void refuse_other_weights(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (std::filesystem::exists(folder / "checkpoint.h5", ignored) || !is_safetensors_folder(folder)) return;
  throw ConfigurationError(fmt::format(
      "--resume {}: a Hugging Face folder (it holds no training run that could go on); start a new "
      "run from its weights with --load",
      folder.string()));
}

TokenizerName tokenizer_of(const json& attributes) {
  return {json_text_in(attributes, "tokenizer", ""), json_text_in(attributes, "tokenizer_sha256", "")};
}

/// What a resumed run may change, but hardly wants to.
void warn_of_other_samples(const json& theirs, const json& ours,
                           const std::function<void(const std::string&)>& note) {
  const TokenizerName before = tokenizer_of(theirs), now = tokenizer_of(ours);
  if (differ(before, now))
    note(fmt::format("warning: --data was made with {}, the checkpoint was trained on tokens of {}",
                     printable(now.to_string()), printable(before.to_string())));
  if (theirs.contains("data") && theirs["data"] != ours["data"])
    note("warning: the token files are others than before: the samples that follow are too");
  for (const char* name : {"seed", "sequence", "packing", "separate_documents", "valid_fraction"})
    if (theirs.contains(name) && theirs[name] != ours[name])
      note(fmt::format(
          "warning: {} was {} and is {} now: the samples that follow are others than they would be", name,
          json_excerpt(theirs[name]), json_excerpt(ours[name])));
}

bool can_be_opened(const std::filesystem::path& folder) {
  try {
    const CheckpointReader checkpoint(folder);
    return true;
  } catch (const CheckpointError&) {
    return false;
  }
}

json options_of(const json& attributes) {
  const json* text = find_json_member(attributes, "configuration");
  if (!text || !text->is_string()) return json::object();
  try {
    return parse_json_object(text->get_ref<const std::string&>());
  } catch (const JsonError&) {
    return json::object();
  }
}

/// What a resumed run may well change, and should see that it has.
void tell_other_options(const json& theirs, const json& ours,
                        const std::function<void(const std::string&)>& note) {
  json before = options_of(theirs), now = options_of(ours);
  if (const std::string was = before.value("load", ""), is = now.value("load", ""); !is.empty() && was != is)
    note(fmt::format(
        "warning: --load {} is not what this run began with ({}): give another --output-dir to start "
        "from it",
        printable(is), was.empty() ? "random weights" : printable(was)));
  // Resolved, where the option says "automatic".
  before["global-batch-size"] = theirs.value("global_batch_size", json());
  now["global-batch-size"] = ours.value("global_batch_size", json());
  const auto word = [](const json& value) {
    return value.is_string() ? printable(value.get_ref<const std::string&>()) : json_excerpt(value);
  };
  std::vector<std::string> changes;
  for (const char* option :
       {"steps", "learning-rate", "min-learning-rate", "warmup-steps", "lr-schedule", "wsd-decay-fraction",
        "weight-decay", "adam-beta1", "adam-beta2", "adam-epsilon", "grad-clip", "global-batch-size",
        "precision", "master-weights", "gradient-dtype", "optimizer-dtype"})
    if (before.contains(option) && now.contains(option) && before[option] != now[option])
      changes.push_back(
          fmt::format("--{} was {} and is {}", option, word(before[option]), word(now[option])));
  if (!changes.empty()) note(fmt::format("changed since the checkpoint: {}", fmt::join(changes, ", ")));
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

Checkpoints::Checkpoints(std::filesystem::path directory, int keep, std::string attributes,
                         ControlPlane& control, std::function<void(const std::string&)> note)
    : directory_(std::move(directory)),
      keep_(keep),
      attributes_(std::move(attributes)),
      control_(&control),
      note_(std::move(note)) {}

void Checkpoints::set_origin(const WeightOrigin& origin) {
  if (!origin.known()) return;
  json attributes = parse_json(attributes_);
  attributes["huggingface"] = parse_json(origin.to_json());
  attributes_ = attributes.dump();
}

void Checkpoints::begin_with(const std::filesystem::path& folder, std::int64_t step) {
  const auto link = directory_ / checkpoint_folder_name(step);
  std::error_code error;
  std::filesystem::create_directory_symlink(std::filesystem::canonical(folder), link, error);
  if (error)
    note_(fmt::format(
        "warning: {} can't be a link to {} ({}): before the first checkpoint --resume auto would begin anew",
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
    json all = parse_json(attributes_);
    all["step"] = position.step;
    all["consumed_samples"] = position.consumed_samples;
    all["tokens"] = position.tokens;
    write_global_view(temporary, manifests, all.dump());
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
    // What can't be loaded does not count, as later steps do not: those are there only then.
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

TrainPosition Checkpoints::check(const std::filesystem::path& folder) const {
  refuse_other_weights(folder);
  return position_of(expect_same_model(CheckpointReader(folder), attributes_));
}

void Checkpoints::check_newest() const {
  const auto found =
      first_usable(list_checkpoints(directory_), [&](const std::filesystem::path& folder) { check(folder); });
  if (!found.folder && !found.refusal.empty()) refuse_all(found.refusal);
}

void Checkpoints::refuse_all(const std::string& reason) const {
  throw CheckpointError(
      fmt::format("--resume auto: none of the checkpoints in {} can be loaded (the last one tried: {}); "
                  "start without --resume, or with --resume PATH",
                  directory_.string(), reason));
}

TrainPosition Checkpoints::load(const std::filesystem::path& folder, ModelState& state) {
  TrainPosition position;
  fail_together(*control_, [&] {
    refuse_other_weights(folder);
    const CheckpointReader checkpoint(folder);
    const json attributes = expect_same_model(checkpoint, attributes_);
    checkpoint.verify(control_->rank(), control_->size());
    position = position_of(attributes);
    state.load(checkpoint);
    const json ours = parse_json(attributes_);
    warn_of_other_samples(attributes, ours, note_);
    tell_other_options(attributes, ours, note_);
    set_origin(origin_of(attributes, checkpoint));
  });
  return position;
}

std::optional<TrainPosition> Checkpoints::load_newest(ModelState& state) {
  // Rank 0's list is everybody's: a file system may show others an older one.
  std::string names;
  fail_together(*control_, [&] {
    if (control_->rank() != 0) return;
    for (const auto& folder : list_checkpoints(directory_)) names += folder.string() + '\n';
  });
  names = control_->broadcast(names, 0);
  std::vector<std::filesystem::path> folders;
  for (std::size_t begin = 0, end = 0; (end = names.find('\n', begin)) != std::string::npos; begin = end + 1)
    folders.emplace_back(names.substr(begin, end - begin));
  std::optional<TrainPosition> position;
  const auto found = first_usable(
      folders, [&](const std::filesystem::path& folder) { position = load(folder, state); },
      [&](const std::string& reason) {
        note_(fmt::format("warning: skipping a checkpoint that can't be loaded: {}", reason));
      });
  if (found.folder && std::filesystem::is_symlink(*found.folder))
    note_(fmt::format("{} is a link to {}", found.folder->string(),
                      std::filesystem::read_symlink(*found.folder).string()));
  if (position || folders.empty()) return position;
  fail_together(*control_, [&] { refuse_all(found.refusal); });
  return {};  // not reached
}

}  // namespace llama3d
