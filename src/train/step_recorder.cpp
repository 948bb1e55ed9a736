#include "train/step_recorder.hpp"

#include <cmath>

#include "train/summary.hpp"

namespace llama3d {

StepRecorder::StepRecorder(PreparedRun& run, const StepRange& profile, Device& device, RunLog& log)
    : run_(run), profile_(profile), device_(device), log_(log) {}

TrainRow StepRecorder::row_of(const QueuedStep& step, const StepResult& result, double seconds) const {
  const RunShape& shape = run_.shape;
  TrainRow row;
  row.step = step.after.step;
  row.time_ns = unix_time_ns();
  row.tokens = step.after.tokens;
  row.loss = result.loss;
  row.grad_norm = result.gradient_norm;
  row.learning_rate = step.learning_rate;
  row.step_seconds = seconds;
  row.tokens_per_second = static_cast<double>(step.tokens) / seconds;
  row.tokens_per_second_per_gpu = row.tokens_per_second / shape.grid.world();
  const auto peak = device_.peak_flops(shape.compute());
  row.mfu =
      peak ? row.tokens_per_second_per_gpu * shape.model.training_flops_per_token(shape.seq_length) / *peak
           : std::nan("");
  row.peak_memory_bytes = static_cast<std::int64_t>(device_.memory_in_use());
  row.skipped = result.skipped;
  return row;
}

void StepRecorder::record(const QueuedStep& step, const StepReport& report) {
  const double seconds = report.step_seconds + (step.waited_for_data ? step.data_seconds : 0);
  const TrainRow row = row_of(step, report.result, seconds);
  MetricsRecorder& metrics = *run_.metrics;
  metrics.train(row);
  const std::int64_t interval = run_.settings.log_interval;
  if (interval > 0 && (row.step % interval == 0 || row.step == 1))
    metrics.ranks(row.step, report, step.data_seconds, seconds, device_.memory_in_use());
  if (profile_.holds(row.step)) metrics.timeline(row.step, report.timeline);
  log_.step({row.step, row.loss, row.grad_norm, row.learning_rate, row.tokens_per_second});
  step_seconds_.push_back(seconds);
  step_tokens_ += step.tokens;
  loss_ = row.loss;
}

std::string StepRecorder::summary() const {
  return summary_table(run_.shape, device_.memory_in_use(), step_seconds_, step_tokens_,
                       device_.peak_flops(run_.shape.compute()));
}

}  // namespace llama3d
