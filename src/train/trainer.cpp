#include "train/trainer.hpp"

#include <fmt/ranges.h>

#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>

#include "base/bytes.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "checkpoint/checkpoints.hpp"
#include "checkpoint/output_folder.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "comm/failure.hpp"
#include "compute/kernels.hpp"
#include "train/batches.hpp"
#include "train/engine.hpp"
#include "train/evaluator.hpp"
#include "train/metrics_recorder.hpp"
#include "train/progress.hpp"
#include "train/run_check.hpp"
#include "train/run_record.hpp"
#include "train/signals.hpp"
#include "train/summary.hpp"

namespace llama3d {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

namespace fs = std::filesystem;

/// One run on one rank, set up and then stepped through.
class Trainer {
 public:
  Trainer(const TrainSettings& settings, Runtime& runtime);
  TrainResult run();

 private:
  void check_and_plan(std::optional<RankPlan>& plan);
  void start();
  /// What there was to do: then nothing is written.
  bool done() const { return position_.step >= settings_.steps; }
  void load_weights();
  void open_output();
  /// One step; false when the job was told to stop instead.
  bool step();
  /// Saves what came of the steps since `first_step`.
  void end_on_signal(std::int64_t first_step);
  /// Takes the reports of steps until no more than `left` are under way.
  void finish_steps(std::size_t left);
  void stop_profiling();
  void count_empty_steps(std::int64_t step, const StepResult& result);
  void count_skips(std::int64_t step, const StepResult& result);
  void validate();
  void save();
  /// Once the step behind the last save was finite: it shows whether what was saved is any good.
  void remove_old_checkpoints();
  /// A run whose last steps were skipped has no result.
  void expect_finite_end() const;
  /// What there is to save goes where the output folder is now. Throws.
  void leave_taken_output();
  void note(const std::string& text) {
    if (progress_)
      progress_->message(text);
    else
      print_log("{}\n", printable_lines(text));
  }

  struct QueuedStep {
    TrainPosition after;
    std::int64_t tokens;  ///< input tokens, without padding
    double learning_rate, data_seconds;
    bool waited_for_data;  ///< nothing was under way while its data were read
  };
  void record_step(const QueuedStep& step, const StepReport& report);

  TrainSettings settings_;
  Runtime& runtime_;
  bool leader_;
  RunShape shape_;
  std::optional<TrainingBatches> batches_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<OutputFolder> output_;  ///< the leader's
  std::optional<Checkpoints> checkpoints_;
  std::unique_ptr<MetricsRecorder> metrics_;
  std::unique_ptr<Progress> progress_;
  LearningRateSchedule schedule_;
  StepRange profile_;
  bool profiling_ = false;
  TrainPosition position_;  ///< behind the last step queued
  std::deque<QueuedStep> queued_;
  TrainResult result_;
  std::vector<double> step_seconds_;
  std::int64_t step_tokens_ = 0;  ///< of the same steps
  bool unproven_save_ = false;    ///< no step since the last save was finite
  std::int64_t last_validation_ = -1, last_save_ = -1, consecutive_skips_ = 0, consecutive_empty_steps_ = 0;
};

Trainer::Trainer(const TrainSettings& settings, Runtime& runtime)
    : settings_(settings),
      runtime_(runtime),
      leader_(runtime.control.rank() == 0),
      schedule_(learning_rate_schedule(settings)),
      profile_(StepRange::parse(settings.profile_steps)) {
  std::optional<RankPlan> plan;
  const ModelConfig model = agreed_model(settings_, runtime.control);
  fail_together(runtime.control, [&] { shape_ = run_shape(settings_, model, runtime.control.size()); });
  // Before memory is planned: communicators take some of the device's.
  auto communicators = runtime.make_communicators(ProcessGrid(shape_.grid, runtime.control.rank()));
  fail_together(runtime.control, [&] { check_and_plan(plan); });
  expect_same_data(*batches_, settings_, runtime.control);
  engine_ = std::make_unique<Engine>(std::move(*plan), optimizer_options(settings), runtime,
                                     std::move(communicators));
  if (leader_ && shape_.grid.size(Axis::tensor) > 1)
    note(fmt::format("tensor-parallel overlap: {}", engine_->overlap().to_string()));
  // What is there is read only where no other run goes on with it.
  fail_together(runtime.control, [&] {
    if (leader_)
      output_ = std::make_unique<OutputFolder>(settings_.output_dir, runtime.control.host(),
                                               [this](const std::string& text) { note(text); });
  });
  start();
  if (done()) {
    if (leader_)
      note(fmt::format("--steps {}: the run in {} is at step {} already, nothing to do", settings.steps,
                       printable(settings.output_dir), position_.step));
    return;
  }
  // Only now, so that a run that can't start leaves nothing behind.
  fail_together(runtime.control, [&] { open_output(); });
  record_run_attributes(*metrics_, settings_, shape_, engine_->overlap().overlap, runtime_);
  if (position_.step > 0)
    metrics_->event(position_.step, "resume", fmt::format("at step {}", position_.step));
  progress_ = std::make_unique<Progress>(leader_, position_.step, settings.steps, settings.log_interval);
}

void Trainer::check_and_plan(std::optional<RankPlan>& plan) {
  Kernels& kernels = runtime_.device.kernels();
  ControlPlane& control = runtime_.control;
  const auto most = check_fits(shape_, kernels, DeviceRoom::of(runtime_.device, control.node_size()));
  plan.emplace(make_rank_plan(shape_, control.rank(), kernels));
  batches_.emplace(settings_, *plan);
  checkpoints_.emplace(
      make_checkpoints(settings_, shape_, *batches_, control, [this](const std::string& text) {
        if (leader_) note(printable(text, 4000));
      }));
  if (!leader_) return;
  check_files(settings_, shape_.model, *checkpoints_);
  note(describe_run(settings_, shape_, runtime_.device));
  if (settings_.warmup_steps > settings_.steps)
    note(
        fmt::format("warning: --warmup-steps {} is more than --steps {}: the learning rate stays below "
                    "--learning-rate",
                    settings_.warmup_steps, settings_.steps));
  note(batches_->describe());
  note(fmt::format("memory of the largest rank:\n{}", most.to_string()));
}

void Trainer::open_output() {
  const bool continues = continues_in_place(settings_);
  if (leader_) {
    output_->make();
    checkpoints_->prepare(continues ? position_.step : 0, settings_.resume != "auto");
    if (!continues && !settings_.resume.empty()) checkpoints_->begin_with(settings_.resume, position_.step);
  }
  metrics_ = std::make_unique<MetricsRecorder>(
      fs::path(settings_.output_dir) / "metrics.h5",
      continues ? std::optional(position_.step) : std::optional<std::int64_t>(), runtime_.control,
      [this](const std::string& text) {
        if (leader_) note(printable(text, 4000));
      },
      [this] { return output_->keep() == OutputFolder::State::ours; });
}

void Trainer::start() {
  std::optional<TrainPosition> loaded;
  if (settings_.resume == "auto") {
    loaded = checkpoints_->load_newest(engine_->state());
    if (leader_)
      note(loaded ? fmt::format("resuming at step {}", loaded->step)
                  : fmt::format("--resume auto: no checkpoint in {}/checkpoints, starting anew",
                                settings_.output_dir));
  } else if (!settings_.resume.empty()) {
    loaded = checkpoints_->load(settings_.resume, engine_->state());
    if (leader_) note(fmt::format("resuming {} at step {}", settings_.resume, loaded->step));
  }
  if (loaded) {
    position_ = *loaded;
    if (leader_ && !settings_.load.empty())
      note(fmt::format("--load {} is not used: the run goes on with its own weights", settings_.load));
  } else if (!settings_.load.empty()) {
    load_weights();
  } else {
    engine_->state().initialize(settings_.seed, shape_.model.initializer_range);
    if (const std::string warning = sizes_alone_warning(settings_); leader_ && !warning.empty())
      note(warning);
  }
  engine_->optimizer().gather_parameters();
}

void Trainer::load_weights() {
  std::unique_ptr<WeightSource> source;
  fail_together(runtime_.control, [&] { source = open_weights(settings_.load); });
  llama3d::load_weights(*source, shape_.model, engine_->state(), runtime_.control);
  checkpoints_->set_origin(source->origin());
  if (!leader_) return;
  note(fmt::format("weights of {}", settings_.load));
  for (const std::string& doubt : doubts(*source, shape_.model, batches_->tokens()))
    note("warning: " + doubt);
}

TrainResult Trainer::run() {
  const std::int64_t first = position_.step;
  result_.steps = first;
  if (done()) return result_;
  if (leader_) SignalGuard::announce();
  while (!done()) {
    if (!step()) {
      end_on_signal(first);
      break;
    }
    const bool last = position_.step == settings_.steps;
    const auto due = [this](std::int64_t interval) { return interval > 0 && position_.step % interval == 0; };
    if (last || due(settings_.valid_interval)) validate();
    if ((last && settings_.final_checkpoint) || due(settings_.checkpoint_interval)) save();
  }
  finish_steps(0);
  stop_profiling();
  result_.steps = position_.step;
  if (consecutive_skips_ == 0) remove_old_checkpoints();
  metrics_->finish();
  progress_.reset();
  expect_finite_end();
  if (leader_ && result_.status == ExitStatus::done)
    note(summary_table(shape_, runtime_.device.memory_in_use(), step_seconds_, step_tokens_,
                       runtime_.device.peak_flops(shape_.compute)));
  return result_;
}

void Trainer::end_on_signal(std::int64_t first_step) {
  result_.status = ExitStatus::requeue;
  const bool saves = position_.step > first_step;
  if (leader_)
    note(saves ? fmt::format("signal received: saving at step {}", position_.step)
               : fmt::format("signal received before a step was done: ending at step {}", position_.step));
  metrics_->event(position_.step, "signal",
                  saves ? "saving and ending, to be resumed" : "ending, to be resumed");
  if (saves) save();
}

bool Trainer::step() {
  const auto begin = Clock::now();
  // Signals and unreadable data reach single ranks: agree before the step's collectives.
  enum Flag : std::int64_t { go_on, signalled, output_taken, unreadable };
  std::int64_t flag = SignalGuard::received() ? signalled : go_on;
  if (leader_ && output_->keep() == OutputFolder::State::taken) flag = output_taken;
  std::vector<BatchRows> rows;
  std::exception_ptr data_error;
  try {
    rows = batches_->read(position_.consumed_samples);
  } catch (const Error&) {
    data_error = std::current_exception();
    flag = unreadable;
  }
  const double data_seconds = seconds_since(begin);
  flag = runtime_.control.all_max(flag);
  if (flag == unreadable)
    fail_together(runtime_.control, [&] {
      if (data_error) std::rethrow_exception(data_error);
    });
  if (flag == output_taken) leave_taken_output();
  if (flag == signalled) return false;
  const double learning_rate = schedule_.at(position_.step + 1);
  const bool profiled = profile_.holds(position_.step + 1);
  if (profiled && !profiling_) {
    finish_steps(0);
    runtime_.device.start_profiler();
    profiling_ = true;
  }
  engine_->queue_step(rows, ++position_.step, learning_rate, profiled);
  const std::int64_t tokens = batches_->tokens(position_.consumed_samples);
  position_.consumed_samples += shape_.global_batch;
  position_.tokens += tokens;
  queued_.push_back({position_, tokens, learning_rate, data_seconds, queued_.empty()});
  // A device that computes beside this thread gets its next step before the last one's report is read.
  finish_steps(runtime_.device.asynchronous() ? 1 : 0);
  if (position_.step == profile_.last) stop_profiling();
  return true;
}

void Trainer::stop_profiling() {
  if (!std::exchange(profiling_, false)) return;
  finish_steps(0);
  runtime_.device.stop_profiler();
}

void Trainer::finish_steps(std::size_t left) {
  while (queued_.size() > left) {
    const StepReport report = engine_->take_report();
    const QueuedStep step = queued_.front();
    queued_.pop_front();
    record_step(step, report);
    count_skips(step.after.step, report.result);
    if (!report.result.skipped) remove_old_checkpoints();
  }
}

void Trainer::count_skips(std::int64_t step, const StepResult& result) {
  count_empty_steps(step, result);
  const bool failed = result.skipped && result.targets > 0;
  consecutive_skips_ = failed ? consecutive_skips_ + 1 : 0;
  if (!failed) return;
  const auto text = fmt::format("loss {} or gradient norm {} is not finite: step {} skipped ({} in a row)",
                                result.loss, result.gradient_norm, step, consecutive_skips_);
  if (leader_) note("warning: " + text);
  metrics_->event(step, "skip", text);
  if (consecutive_skips_ < settings_.max_skipped_steps) return;
  fail_together(runtime_.control, [&] {
    throw NumericsError(
        fmt::format("{} steps in a row with a loss or gradient that is not finite (last loss {}, gradient "
                    "norm {}); lower --learning-rate, or look at the data around step {}",
                    consecutive_skips_, result.loss, result.gradient_norm, step));
  });
}

/// Nothing to learn is a matter of the data, not of the numerics.
void Trainer::count_empty_steps(std::int64_t step, const StepResult& result) {
  consecutive_empty_steps_ = result.targets == 0 ? consecutive_empty_steps_ + 1 : 0;
  if (result.targets > 0) return;
  const auto text = fmt::format("no token of step {} is a target: nothing learnt", step);
  if (leader_) note("warning: " + text);
  metrics_->event(step, "skip", text);
  if (consecutive_empty_steps_ < settings_.max_skipped_steps) return;
  fail_together(runtime_.control, [&] {
    throw DataError(
        fmt::format("--data {}: {} steps in a row had no token to learn (its loss mask leaves none); see "
                    "tokenize --loss-on and "
                    "--cutoff, or raise --global-batch-size",
                    settings_.data, consecutive_empty_steps_));
  });
}

void Trainer::record_step(const QueuedStep& step, const StepReport& report) {
  const double step_seconds = report.step_seconds + (step.waited_for_data ? step.data_seconds : 0);
  const StepResult& result = report.result;
  const auto tokens = static_cast<double>(step.tokens);
  TrainRow row;
  row.step = step.after.step;
  row.time_ns = unix_time_ns();
  row.tokens = step.after.tokens;
  row.loss = result.loss;
  row.grad_norm = result.gradient_norm;
  row.learning_rate = step.learning_rate;
  row.step_seconds = step_seconds;
  row.tokens_per_second = tokens / step_seconds;
  row.tokens_per_second_per_gpu = row.tokens_per_second / shape_.grid.world();
  const auto peak = runtime_.device.peak_flops(shape_.compute);
  row.mfu =
      peak ? row.tokens_per_second_per_gpu * shape_.model.training_flops_per_token(shape_.sequence) / *peak
           : std::nan("");
  row.peak_memory_bytes = static_cast<std::int64_t>(runtime_.device.memory_in_use());
  row.skipped = result.skipped;
  metrics_->train(row);
  if (settings_.log_interval > 0 && (row.step % settings_.log_interval == 0 || row.step == 1))
    metrics_->ranks(row.step, report, step.data_seconds, step_seconds, runtime_.device.memory_in_use());
  if (profile_.holds(row.step)) metrics_->timeline(row.step, report.timeline);
  step_seconds_.push_back(step_seconds);
  step_tokens_ += step.tokens;
  result_.loss = result.loss;
  progress_->step({row.step, result.loss, result.gradient_norm, row.learning_rate, row.tokens_per_second});
}

void Trainer::validate() {
  if (!batches_->has_validation() || last_validation_ == position_.step) return;
  finish_steps(0);
  const Phase phase(runtime_.control.activity(), "validating");
  const Evaluation evaluation = evaluate_validation(*engine_, *batches_, runtime_.control);
  last_validation_ = position_.step;
  if (evaluation.targets == 0) {
    if (leader_)
      note(fmt::format("warning: step {}: no token of the validation data is a target", position_.step));
    return;
  }
  result_.valid_loss = evaluation.loss;
  metrics_->valid({position_.step, evaluation.loss, std::exp(evaluation.loss)});
  if (leader_)
    note(fmt::format("step {}: validation loss {:.4f}, perplexity {:.2f} ({:.0f} targets)", position_.step,
                     evaluation.loss, std::exp(evaluation.loss), evaluation.targets));
}

void Trainer::save() {
  if (last_save_ == position_.step) return;
  finish_steps(0);
  const bool ends = done() || result_.status == ExitStatus::requeue;
  if (consecutive_skips_ > 0 && !ends) {
    if (leader_) note(fmt::format("step {}: not saved, as it was skipped", position_.step));
    return;
  }
  const Phase phase(runtime_.control.activity(), "saving a checkpoint");
  const auto begin = Clock::now();
  const auto output = agreed_state(output_.get(), runtime_.control);
  if (output == OutputFolder::State::taken) leave_taken_output();
  try {
    fail_together(runtime_.control, [&] {
      if (leader_ && output == OutputFolder::State::unreachable)
        throw CheckpointWriteError(output_->problem());
    });
    const auto folder = checkpoints_->save(position_, engine_->state());
    last_save_ = position_.step;
    unproven_save_ = true;
    metrics_->event(position_.step, "checkpoint",
                    fmt::format("{} in {:.2f} s", folder.string(), seconds_since(begin)));
    metrics_->sync();
    if (leader_) note(fmt::format("step {}: saved {}", position_.step, folder.string()));
  } catch (const CollectiveError& error) {
    // A full disk must not end a run that can go on; at its end there is nothing left to go on with.
    if (ends) throw;
    if (leader_) note(fmt::format("warning: no checkpoint at step {}: {}", position_.step, error.what()));
    metrics_->event(position_.step, "checkpoint", fmt::format("failed: {}", error.what()));
  }
}

void Trainer::remove_old_checkpoints() {
  if (last_save_ < 0 || !std::exchange(unproven_save_, false) || !leader_) return;
  checkpoints_->remove_old(last_save_);
}

void Trainer::expect_finite_end() const {
  if (!done() || consecutive_skips_ == 0) return;
  fail_together(runtime_.control, [&] {
    throw NumericsError(fmt::format(
        "the last {} steps were skipped, their loss or gradient was not finite: step {} is none to go "
        "on from; use an earlier checkpoint with a lower --learning-rate",
        consecutive_skips_, position_.step));
  });
}

void Trainer::leave_taken_output() {
  finish_steps(0);
  throw_output_taken(output_.get(), runtime_.control, [&](const fs::path& refuge) {
    if (position_.step == 0) return std::string("no step was done");
    checkpoints_->move_to(refuge / "checkpoints");
    return "saved " + checkpoints_->save(position_, engine_->state()).string();
  });
}

}  // namespace

TrainResult train(const TrainSettings& settings, Runtime& runtime) {
  // From the set-up on, which takes minutes where much is read.
  const SignalGuard signals;
  return Trainer(settings, runtime).run();
}

}  // namespace llama3d
