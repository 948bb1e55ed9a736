#include "train/start_decision.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/printable.hpp"
#include "checkpoint/checkpoints.hpp"
#include "comm/failure.hpp"
#include "io/safetensors/safetensors.hpp"
#include "train/run_shape.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;
using Kind = StartDecision::Kind;

/// A checkpoint that a run of this model, or else of its own, can go on from.
std::unique_ptr<CheckpointContents> open_for(const std::optional<ModelConfig>& model,
                                             const fs::path& folder) {
  auto checkpoint = open_to_resume(folder);
  checkpoint->expect_run_of(model ? *model : checkpoint->model());
  return checkpoint;
}

bool is_own_checkpoint(const TrainSettings& s, const fs::path& folder) {
  std::error_code error;
  // A link in the run's own folder is its own: it stands for what the run began with.
  const fs::path named = fs::absolute(folder.has_filename() ? folder : folder.parent_path(), error);
  if (!error && fs::equivalent(named.parent_path(), checkpoint_directory(s), error)) return true;
  const fs::path real = fs::canonical(folder, error);
  return !error && fs::equivalent(real.parent_path(), checkpoint_directory(s), error);
}

void resume_named(StartDecision& start, const TrainSettings& s, const std::optional<ModelConfig>& model) {
  start.checkpoint = open_for(model, s.resume);
  // A run would only put aside what is in its folder.
  if (const std::int64_t step = start.checkpoint->position().step; step >= s.steps)
    throw ConfigurationError(fmt::format(
        "`steps {}`: `resume {}` is at step {} already; give more steps, or an earlier checkpoint", s.steps,
        printable(s.resume), step));
  start.kind = is_own_checkpoint(s, s.resume) ? Kind::resume : Kind::resume_elsewhere;
  start.folders = {s.resume};
}

/// Leaves the kind where there is no checkpoint.
void resume_newest(StartDecision& start, const TrainSettings& s, const std::optional<ModelConfig>& model) {
  start.automatic = true;
  start.folders = list_checkpoints(checkpoint_directory(s));
  const auto found = first_usable(
      start.folders, [&](const fs::path& folder) { start.checkpoint = open_for(model, folder); },
      [&](const std::string& reason) { start.notes.push_back(skipped_checkpoint(reason)); });
  if (found.folder) {
    start.kind = Kind::resume;
    start.folders.erase(start.folders.begin(),
                        std::find(start.folders.begin(), start.folders.end(), *found.folder));
  } else if (!start.folders.empty()) {
    refuse_all_checkpoints(s, found.refusal);
  } else {
    start.notes.push_back(
        fmt::format("`resume` auto: no checkpoint in {}/checkpoints, starting anew", s.output_dir));
  }
}

void load(StartDecision& start, const TrainSettings& s, const std::optional<ModelConfig>& model) {
  start.kind = Kind::load;
  start.folders = {s.load};
  start.weights = open_weights(s.load);
  start.weights->check(model ? *model : start.weights->model());
}

}  // namespace

StartDecision decide_start(const TrainSettings& s) {
  StartDecision start;
  std::optional<ModelConfig> model;
  if (!s.model.empty()) model = load_model_config(s.model);
  if (s.resume == "auto")
    resume_newest(start, s, model);
  else if (!s.resume.empty())
    resume_named(start, s, model);
  // A run that goes on does not need what it once started from, which may be gone.
  if (!start.resumes() && !s.load.empty()) load(start, s, model);
  if (start.kind == Kind::fresh && is_safetensors_folder(s.model))
    start.doubts.push_back(fmt::format(
        "`model {}` gives the sizes alone, the weights begin at random; to start from its weights give "
        "`load {}`",
        s.model, s.model));
  start.model = model              ? *model
                : start.checkpoint ? start.checkpoint->model()
                : start.weights    ? start.weights->model()
                                   : load_model_config("llama3-tiny");
  return start;
}

StartDecision agreed_start(const TrainSettings& settings, ControlPlane& control) {
  StartDecision start;
  fail_together(control, [&] {
    if (control.rank() == 0) start = decide_start(settings);
  });
  const auto agree = [&](const std::string& text) { return control.broadcast(text, 0); };
  start.automatic = settings.resume == "auto";
  start.kind = static_cast<Kind>(std::stoi(agree(std::to_string(static_cast<int>(start.kind)))));
  start.folders.resize(std::stoul(agree(std::to_string(start.folders.size()))));
  for (fs::path& folder : start.folders) folder = agree(folder.string());
  const std::string name = agree(start.model.name);
  start.model = parse_model_config(agree(to_json(start.model)), name);
  return start;
}

void refuse_all_checkpoints(const TrainSettings& settings, const std::string& reason) {
  throw CheckpointError(
      fmt::format("`resume` auto: none of the checkpoints in {} can be loaded (the last one tried: {}); "
                  "start without `resume`, or with `resume` PATH",
                  checkpoint_directory(settings).string(), reason));
}

std::string skipped_checkpoint(const std::string& reason) {
  return fmt::format("warning: skipping a checkpoint that can't be loaded: {}", reason);
}

}  // namespace llama3d
