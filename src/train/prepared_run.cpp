#include "train/prepared_run.hpp"

#include <fmt/format.h>

#include "base/printable.hpp"
#include "comm/failure.hpp"
#include "compute/kernels.hpp"
#include "train/run_record.hpp"
#include "train/start_run.hpp"

namespace llama3d {
namespace {

/// The output folder is read only once no other run can go on in it.
void lock_output(PreparedRun& run, ControlPlane& control, RunLog& log) {
  fail_together(control, [&] {
    if (control.rank() != 0) return;
    check_output_folder(run.settings.output_dir);
    run.output = std::make_unique<OutputFolder>(run.settings.output_dir, control.host(), log.taking_notes());
  });
}

void describe(const PreparedRun& run, const MemoryPlan& most, const Device& device, RunLog& log) {
  const TrainSettings& settings = run.settings;
  log.notes(describe_run(settings, run.shape, device));
  if (settings.warmup_steps > settings.steps)
    log.note(
        fmt::format("warning: `warmup_steps {}` is more than `steps {}`: the learning rate stays below "
                    "`learning_rate`",
                    settings.warmup_steps, settings.steps));
  log.notes(run.batches->describe());
  log.notes(fmt::format("memory of the largest rank:\n{}", most.to_string()));
}

/// Plans, opens the data and allocates.
void make_engine(PreparedRun& run, Runtime& runtime, RunLog& log) {
  ControlPlane& control = runtime.control;
  // Before memory is planned: communicators take some of the device's.
  auto communicators = runtime.make_communicators(ProcessGrid(run.shape.grid, control.rank()));
  std::optional<RankPlan> plan;
  fail_together(control, [&] {
    Kernels& kernels = runtime.device.kernels();
    const auto most = check_fits(run.shape, kernels, DeviceCapacity::of(runtime.device, control.node_size()));
    plan.emplace(make_rank_plan(run.shape, control.rank(), kernels));
    run.batches.emplace(run.settings, *plan);
    describe(run, most, runtime.device, log);
  });
  expect_same_data(*run.batches, run.settings, control);
  run.engine = std::make_unique<Engine>(std::move(*plan), optimizer_options(run.settings), runtime,
                                        std::move(communicators));
  if (run.shape.grid.size(Axis::tensor) > 1)
    log.note(fmt::format("tensor-parallel overlap: {}", run.engine->overlap().to_string()));
}

/// Makes the folder and puts aside what is another run's; `folder` is that of the checkpoint resumed.
void open_output(PreparedRun& run, bool in_place, bool automatic, const std::filesystem::path& folder,
                 ControlPlane& control, RunLog& log) {
  if (control.rank() == 0) {
    run.output->make();
    run.checkpoints->prepare(in_place ? run.position.step : 0, !automatic);
    if (!in_place && !folder.empty()) run.checkpoints->begin_with(folder, run.position.step);
  }
  run.metrics = std::make_unique<MetricsRecorder>(
      std::filesystem::path(run.settings.output_dir) / "metrics.h5",
      in_place ? std::optional(run.position.step) : std::nullopt, control, log.taking_notes(),
      [output = run.output.get()] { return output->keep() == OutputFolder::State::ours; });
}

}  // namespace

PreparedRun prepare_run(const TrainSettings& settings, Runtime& runtime, RunLog& log) {
  ControlPlane& control = runtime.control;
  PreparedRun run;
  run.settings = settings;
  lock_output(run, control, log);
  StartDecision start = agreed_start(settings, control);
  const bool in_place = start.in_place(), automatic = start.automatic;
  fail_together(control, [&] { run.shape = run_shape(settings, start.model, control.size()); });
  make_engine(run, runtime, log);
  run.checkpoints.emplace(checkpoint_directory(settings), settings.keep_checkpoints,
                          checkpoint_attributes(settings, run.shape, *run.batches), control,
                          log.taking_notes());
  StartedRun started = start_run(std::move(start), settings, *run.checkpoints->attributes().run,
                                 run.batches->tokens(), *run.engine, control, log);
  run.position = started.position;
  run.checkpoints->set_origin(std::move(started.origin));
  if (run.done()) {
    log.note(fmt::format("`steps {}`: the run in {} is at step {} already, nothing to do", settings.steps,
                         printable(settings.output_dir), run.position.step));
    return run;
  }
  fail_together(control, [&] { open_output(run, in_place, automatic, started.folder, control, log); });
  record_run_attributes(*run.metrics, settings, run.shape, run.engine->overlap().overlap, runtime);
  if (run.position.step > 0)
    run.metrics->event(run.position.step, "resume", fmt::format("at step {}", run.position.step));
  return run;
}

}  // namespace llama3d
