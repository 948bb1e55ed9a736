#include "train/run_saver.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "comm/failure.hpp"
#include "io/checkpoint/checkpoint_file.hpp"

namespace llama3d {

RunSaver::RunSaver(PreparedRun& run, ControlPlane& control, RunLog& log)
    : run_(run), control_(control), log_(log) {}

void RunSaver::save(bool last_chance) {
  const Phase phase(control_.activity(), "saving a checkpoint");
  const std::int64_t step = run_.position.step;
  const auto output = agreed_state(run_.output.get(), control_);
  if (output == OutputFolder::State::taken) leave_taken_output();
  try {
    fail_together(control_, [&] {
      if (run_.output && output == OutputFolder::State::unreachable)
        throw CheckpointWriteError(run_.output->problem());
    });
    write();
  } catch (const CollectiveError& error) {
    // A full disk must not end a run that can go on; at its end there is nothing left to go on with.
    if (last_chance) throw;
    log_.note(fmt::format("warning: no checkpoint at step {}: {}", step, error.what()));
    run_.metrics->event(step, "checkpoint", fmt::format("failed: {}", error.what()));
  }
}

void RunSaver::write() {
  const auto begin = std::chrono::steady_clock::now();
  const std::int64_t step = run_.position.step;
  const std::string folder = run_.checkpoints->save(run_.position, run_.engine->state()).string();
  last_save_ = step;
  unproven_ = true;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  run_.metrics->event(step, "checkpoint", fmt::format("{} in {:.2f} s", folder, seconds.count()));
  run_.metrics->sync();
  log_.note(fmt::format("step {}: saved {}", step, folder));
}

void RunSaver::prove() {
  if (std::exchange(unproven_, false) && control_.rank() == 0) run_.checkpoints->remove_old(last_save_);
}

void RunSaver::leave_taken_output() {
  throw_output_taken(run_.output.get(), control_, [&](const std::filesystem::path& refuge) {
    if (run_.position.step == 0) return std::string("no step was done");
    run_.checkpoints->move_to(refuge / "checkpoints");
    return "saved " + run_.checkpoints->save(run_.position, run_.engine->state()).string();
  });
}

}  // namespace llama3d
