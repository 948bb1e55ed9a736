#include "train/start_run.hpp"

#include <fmt/format.h>

#include <utility>

#include "checkpoint/checkpoints.hpp"
#include "checkpoint/run_changes.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "comm/failure.hpp"
#include "options/option.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

/// The checkpoint that was loaded: where an automatic start finds one damaged, an older one.
std::unique_ptr<CheckpointContents> load_checkpoint(StartDecision& start, const TrainSettings& settings,
                                                    Engine& engine, ControlPlane& control, RunLog& log) {
  std::unique_ptr<CheckpointContents> loaded;
  const auto load = [&](const fs::path& folder) {
    loaded = load_run(folder, std::exchange(start.checkpoint, nullptr), start.model, engine.state(), control);
  };
  if (!start.automatic) {
    load(start.folders.front());
    return loaded;
  }
  const auto found = first_usable(start.folders, load,
                                  [&](const std::string& reason) { log.note(skipped_checkpoint(reason)); });
  if (!found.folder) fail_together(control, [&] { refuse_all_checkpoints(settings, found.refusal); });
  return loaded;
}

void tell_resumed(const CheckpointContents& checkpoint, const StartDecision& start,
                  const TrainSettings& settings, const RunRecord& run, RunLog& log) {
  const RunRecord before = checkpoint.run().value_or(RunRecord{});
  for (const auto& changed :
       {changed_samples(before, run), changed_options(before, run, options_that_change_results())})
    for (const std::string& line : changed) log.note(line);
  const fs::path& folder = checkpoint.folder();
  const std::int64_t step = before.position.step;
  if (std::error_code ignored; start.automatic && fs::is_symlink(folder, ignored))
    log.note(fmt::format("{} is a link to {}", folder.string(), fs::read_symlink(folder, ignored).string()));
  log.note(start.automatic ? fmt::format("resuming at step {}", step)
                           : fmt::format("resuming {} at step {}", folder.string(), step));
  if (!settings.load.empty())
    log.note(fmt::format("`load {}` is not used: the run goes on with its own weights", settings.load));
}

StartedRun resume(StartDecision& start, const TrainSettings& settings, const RunRecord& run, Engine& engine,
                  ControlPlane& control, RunLog& log) {
  const auto checkpoint = load_checkpoint(start, settings, engine, control, log);
  tell_resumed(*checkpoint, start, settings, run, log);
  return {checkpoint->position(), checkpoint->origin(), checkpoint->folder()};
}

StartedRun load(StartDecision& start, const TokenFileInfo& tokens, Engine& engine, ControlPlane& control,
                RunLog& log) {
  fail_together(control, [&] {
    if (!start.weights) start.weights = open_weights(start.folders.front());
  });
  const WeightSource& weights = *start.weights;
  load_weights(weights, start.model, engine.state(), control);
  log.note(fmt::format("weights of {}", weights.folder().string()));
  for (const std::string& doubt : doubts(weights, start.model, tokens)) log.note("warning: " + doubt);
  return {{}, weights.origin(), {}};
}

}  // namespace

StartedRun start_run(StartDecision start, const TrainSettings& settings, const RunRecord& run,
                     const TokenFileInfo& tokens, Engine& engine, ControlPlane& control, RunLog& log) {
  for (const std::string& note : start.notes) log.note(note);
  StartedRun started;
  if (start.resumes())
    started = resume(start, settings, run, engine, control, log);
  else if (start.kind == StartDecision::Kind::load)
    started = load(start, tokens, engine, control, log);
  else
    engine.state().initialize(settings.seed, start.model.initializer_range);
  for (const std::string& doubt : start.doubts) log.note("warning: " + doubt);
  engine.optimizer().gather_parameters();
  return started;
}

}  // namespace llama3d
