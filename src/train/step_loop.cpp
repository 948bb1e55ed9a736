#include "train/step_loop.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <utility>

#include "comm/failure.hpp"
#include "train/evaluator.hpp"
#include "train/signals.hpp"

namespace llama3d {

StepLoop::StepLoop(PreparedRun& run, Runtime& runtime, RunLog& log)
    : run_(run),
      runtime_(runtime),
      log_(log),
      position_(run.position),
      first_step_(run.position.step),
      learning_rate_(learning_rate_schedule(run.settings)),
      profile_(StepRange::parse(run.settings.profile_steps)),
      recorder_(run, profile_, runtime.device, log),
      skipped_(run.settings, runtime.control, *run.metrics, log),
      saver_(run, runtime.control, log) {}

TrainResult StepLoop::run() {
  const TrainSettings& settings = run_.settings;
  if (runtime_.control.rank() == 0) SignalGuard::announce();
  log_.begin_steps(first_step_, settings.steps, settings.log_interval);
  while (!run_.done()) {
    if (!step()) {
      end_on_signal();
      break;
    }
    const bool last = run_.done();
    const auto due = [this](std::int64_t interval) { return interval > 0 && position_.step % interval == 0; };
    if (last || due(settings.valid_interval)) validate();
    if ((last && settings.final_checkpoint) || due(settings.checkpoint_interval)) save();
  }
  finish();
  return {.status = signalled_ ? ExitStatus::requeue : ExitStatus::done,
          .steps = position_.step,
          .loss = recorder_.last_loss(),
          .valid_loss = valid_loss_};
}

bool StepLoop::step() {
  const StepData data = read_data();
  if (!agreed_to_step(data)) return false;
  begin_profiling(position_.step + 1);
  queue_step(data);
  // A device that computes beside this thread gets its next step before the last one's report is read.
  finish_steps(runtime_.device.asynchronous() ? 1 : 0);
  if (position_.step == profile_.last) end_profiling();
  return true;
}

StepLoop::StepData StepLoop::read_data() const {
  const auto begin = std::chrono::steady_clock::now();
  StepData data;
  try {
    data.rows = run_.batches->read(position_.consumed_samples);
  } catch (const Error&) {
    data.error = std::current_exception();
  }
  data.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return data;
}

bool StepLoop::agreed_to_step(const StepData& data) {
  enum Flag : std::int64_t { go_on, signalled, output_taken, unreadable };
  Flag mine = go_on;
  if (SignalGuard::received()) mine = signalled;
  if (saver_.output_taken()) mine = output_taken;
  if (data.error) mine = unreadable;
  const std::int64_t flag = runtime_.control.all_max(mine);
  if (flag == unreadable)
    fail_together(runtime_.control, [&] {
      if (data.error) std::rethrow_exception(data.error);
    });
  if (flag == output_taken) {
    finish_steps(0);
    saver_.leave_taken_output();
  }
  return flag != signalled;
}

void StepLoop::queue_step(const StepData& data) {
  const std::int64_t step = position_.step + 1;
  const double learning_rate = learning_rate_.at(step);
  run_.engine->queue_step(data.rows, step, learning_rate, profile_.holds(step));
  const std::int64_t tokens = run_.batches->tokens(position_.consumed_samples);
  position_.step = step;
  position_.consumed_samples += run_.shape.global_batch();
  position_.tokens += tokens;
  queued_.push_back({position_, tokens, learning_rate, data.seconds, queued_.empty()});
}

void StepLoop::finish_steps(std::size_t left) {
  while (queued_.size() > left) {
    const StepReport report = run_.engine->take_report();
    const QueuedStep step = queued_.front();
    queued_.pop_front();
    recorder_.record(step, report);
    skipped_.count(step.after.step, report.result);
    if (!report.result.skipped) saver_.prove();
  }
}

void StepLoop::begin_profiling(std::int64_t step) {
  if (profiling_ || !profile_.holds(step)) return;
  finish_steps(0);
  runtime_.device.start_profiler();
  profiling_ = true;
}

void StepLoop::end_profiling() {
  if (!std::exchange(profiling_, false)) return;
  finish_steps(0);
  runtime_.device.stop_profiler();
}

void StepLoop::validate() {
  const std::int64_t step = position_.step;
  if (!run_.batches->has_validation() || last_validation_ == step) return;
  finish_steps(0);
  const Phase phase(runtime_.control.activity(), "validating");
  const Evaluation evaluation = evaluate_validation(*run_.engine, *run_.batches, runtime_.control);
  last_validation_ = step;
  if (evaluation.targets == 0) {
    log_.note(fmt::format("warning: step {}: no token of the validation data is a target", step));
    return;
  }
  valid_loss_ = evaluation.loss;
  run_.metrics->valid({step, evaluation.loss, std::exp(evaluation.loss)});
  log_.note(fmt::format("step {}: validation loss {:.4f}, perplexity {:.2f} ({:.0f} targets)", step,
                        evaluation.loss, std::exp(evaluation.loss), evaluation.targets));
}

void StepLoop::save() {
  if (saver_.saved(position_.step)) return;
  finish_steps(0);
  const bool ends = run_.done() || signalled_;
  if (skipped_.in_a_row() > 0 && !ends)
    log_.note(fmt::format("step {}: not saved, as it was skipped", position_.step));
  else
    saver_.save(ends);
}

void StepLoop::end_on_signal() {
  signalled_ = true;
  const std::int64_t step = position_.step;
  const bool saves = step > first_step_;
  log_.note(saves ? fmt::format("signal received: saving at step {}", step)
                  : fmt::format("signal received before a step was done: ending at step {}", step));
  run_.metrics->event(step, "signal", saves ? "saving and ending, to be resumed" : "ending, to be resumed");
  if (saves) save();
}

void StepLoop::finish() {
  finish_steps(0);
  end_profiling();
  if (skipped_.in_a_row() == 0) saver_.prove();
  run_.metrics->finish();
  log_.end_steps();
  if (run_.done()) skipped_.expect_finite_end(position_.step);
  if (!signalled_) log_.notes(recorder_.summary());
}

}  // namespace llama3d
