#include "optim/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.hpp"

namespace llama3d {

std::string_view name_of(LearningRateKind kind) {
  switch (kind) {
    case LearningRateKind::cosine: return "cosine";
    case LearningRateKind::linear: return "linear";
    case LearningRateKind::constant: return "constant";
    case LearningRateKind::wsd: return "wsd";
  }
  return "?";
}

LearningRateKind parse_learning_rate_kind(std::string_view word) {
  for (const auto kind : {LearningRateKind::cosine, LearningRateKind::linear, LearningRateKind::constant,
                          LearningRateKind::wsd})
    if (word == name_of(kind)) return kind;
  throw ConfigurationError(
      fmt::format("`lr_schedule {}`: unknown; use cosine, linear, constant or wsd", word));
}

double LearningRateSchedule::at(std::int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (kind == LearningRateKind::constant) return peak;
  std::int64_t decay_begin = warmup_steps;
  if (kind == LearningRateKind::wsd)
    decay_begin = std::max(
        warmup_steps,
        steps - static_cast<std::int64_t>(std::llround(decay_fraction * static_cast<double>(steps))));
  if (step <= decay_begin) return peak;
  if (step >= steps) return minimum;
  const double progress = static_cast<double>(step - decay_begin) / static_cast<double>(steps - decay_begin);
  const double left =
      kind == LearningRateKind::cosine ? 0.5 * (1 + std::cos(std::numbers::pi * progress)) : 1 - progress;
  return minimum + (peak - minimum) * left;
}

}  // namespace llama3d
