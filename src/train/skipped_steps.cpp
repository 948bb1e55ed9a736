#include "train/skipped_steps.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace llama3d {

SkippedSteps::SkippedSteps(const TrainSettings& settings, ControlPlane& control, MetricsRecorder& metrics,
                           RunLog& log)
    : settings_(settings), control_(control), metrics_(metrics), log_(log) {}

void SkippedSteps::count(std::int64_t step, const StepResult& result) {
  count_empty(step, result);
  count_broken(step, result);
}

void SkippedSteps::tell(std::int64_t step, const std::string& text) {
  log_.note("warning: " + text);
  metrics_.event(step, "skip", text);
}

void SkippedSteps::count_broken(std::int64_t step, const StepResult& result) {
  const bool broken = result.skipped && result.targets > 0;
  broken_ = broken ? broken_ + 1 : 0;
  if (!broken) return;
  tell(step, fmt::format("loss {} or gradient norm {} is not finite: step {} skipped ({} in a row)",
                         result.loss, result.gradient_norm, step, broken_));
  if (broken_ < settings_.max_skipped_steps) return;
  fail_together(control_, [&] {
    throw NumericsError(
        fmt::format("{} steps in a row with a loss or gradient that is not finite (last loss {}, gradient "
                    "norm {}); lower `learning_rate`, or look at the data around step {}",
                    broken_, result.loss, result.gradient_norm, step));
  });
}

/// Nothing to learn is a matter of the data, not of the numerics.
void SkippedSteps::count_empty(std::int64_t step, const StepResult& result) {
  empty_ = result.targets == 0 ? empty_ + 1 : 0;
  if (result.targets > 0) return;
  tell(step, fmt::format("no token of step {} is a target: nothing learnt", step));
  if (empty_ < settings_.max_skipped_steps) return;
  fail_together(control_, [&] {
    throw DataError(
        fmt::format("`data {}`: {} steps in a row had no token to learn (its loss mask leaves none); see "
                    "tokenize `loss_on` and `cutoff`, or raise `global_batch_size`",
                    settings_.data, empty_));
  });
}

void SkippedSteps::expect_finite_end(std::int64_t step) const {
  if (broken_ == 0) return;
  fail_together(control_, [&] {
    throw NumericsError(fmt::format(
        "the last {} steps were skipped, their loss or gradient was not finite: step {} is none to go "
        "on from; use an earlier checkpoint with a lower `learning_rate`",
        broken_, step));
  });
}

}  // namespace llama3d
