#pragma once

#include <cstdint>
#include <string_view>

namespace llama3d {

enum class LearningRateKind { cosine, linear, constant, wsd };

/// The word of `--lr-schedule`. parse throws ConfigurationError listing the valid words.
std::string_view name_of(LearningRateKind kind);
LearningRateKind parse_learning_rate_kind(std::string_view word);

/// Learning rate as a function of the step.
struct LearningRateSchedule {
  LearningRateKind kind = LearningRateKind::cosine;
  double peak = 3e-4;
  double minimum = 3e-5;
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 0;       ///< of the whole run
  double decay_fraction = 0.2;  ///< share of the steps at the end in which wsd decays (Hu et al., 2024)

  /// Of step 1 to `steps`: linear from 0 over the warm-up, which ends at `peak`; then to `minimum` at the
  /// last step by half a cosine or a line, or constant; wsd stays at peak until its decay, a line. Beyond the
  /// last step as there.
  double at(std::int64_t step) const;
};

}  // namespace llama3d
