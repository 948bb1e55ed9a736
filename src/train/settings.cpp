#include "train/settings.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

template <class Number>
void require(bool valid, const std::string& option, Number value, const char* right) {
  if (!valid) throw ConfigurationError(fmt::format("--{} {}: must be {}", option, value, right));
}

/// A factor of 1e8 on either side of fp32's own range, for what they are multiplied with.
constexpr double least_fp32 = 1e-30, most_fp32 = 1e30;

}  // namespace

StepRange StepRange::parse(const std::string& text) {
  if (text.empty()) return {};
  StepRange range;
  const auto colon = text.find(':');
  const auto read = [](std::string_view word, std::int64_t& value) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size();
  };
  const std::string_view first = std::string_view(text).substr(0, colon);
  const std::string_view last = colon == std::string::npos ? first : std::string_view(text).substr(colon + 1);
  if (!read(first, range.first) || !read(last, range.last) || range.first < 1 || range.last < range.first)
    throw ConfigurationError(
        fmt::format("--profile-steps {}: not a range of steps; give FIRST:LAST, such as 10:12", text));
  return range;
}

double lowest_learning_rate(const TrainSettings& s) {
  if (!std::isnan(s.min_learning_rate)) return s.min_learning_rate;
  return s.learning_rate < TrainSettings().learning_rate ? s.learning_rate / 10 : 3e-5;
}

void check_comm_timeout(double seconds) {
  require(seconds >= 0, "comm-timeout", seconds, "0 (no limit) or more seconds");
}

void check_settings(const TrainSettings& s) {
  StepRange::parse(s.profile_steps);
  require(s.tp_size >= 1, "tp-size", s.tp_size, "at least 1");
  require(s.pp_size >= 1, "pp-size", s.pp_size, "at least 1");
  require(s.tp_overlap_blocks >= 0, "tp-overlap-blocks", s.tp_overlap_blocks,
          "at least 1, or 0 for automatic");
  require(s.pipeline_chunks >= 0, "pipeline-chunks", s.pipeline_chunks, "0 or more");
  require(s.micro_batch_size >= 1 && s.micro_batch_size <= INT32_MAX, "micro-batch-size", s.micro_batch_size,
          "from 1 to 2147483647");
  require(s.global_batch_size >= 0, "global-batch-size", s.global_batch_size,
          "at least 1, or 0 for automatic");
  require(s.steps >= 1, "steps", s.steps, "at least 1");
  // Devices compute with them in fp32.
  const std::pair<const char*, double> fp32_values[] = {{"learning-rate", s.learning_rate},
                                                        {"min-learning-rate", lowest_learning_rate(s)},
                                                        {"weight-decay", s.weight_decay},
                                                        {"adam-epsilon", s.epsilon},
                                                        {"grad-clip", s.grad_clip}};
  for (const auto& [option, value] : fp32_values)
    require(value == 0 || (std::abs(value) >= least_fp32 && std::abs(value) <= most_fp32), option, value,
            "0, or from 1e-30 to 1e30");
  require(s.learning_rate >= 0, "learning-rate", s.learning_rate, "0 or more");
  const double lowest = lowest_learning_rate(s);
  require(lowest >= 0 && lowest <= s.learning_rate, "min-learning-rate", lowest,
          "from 0 to --learning-rate (give both)");
  require(s.warmup_steps >= 0, "warmup-steps", s.warmup_steps, "0 or more");
  require(s.wsd_decay_fraction >= 0 && s.wsd_decay_fraction <= 1, "wsd-decay-fraction", s.wsd_decay_fraction,
          "from 0 to 1");
  require(s.weight_decay >= 0, "weight-decay", s.weight_decay, "0 or more");
  require(s.beta1 >= 0 && static_cast<float>(s.beta1) < 1, "adam-beta1", s.beta1,
          "from 0 to below 1 (in fp32)");
  require(s.beta2 >= 0 && static_cast<float>(s.beta2) < 1, "adam-beta2", s.beta2,
          "from 0 to below 1 (in fp32)");
  require(s.epsilon > 0, "adam-epsilon", s.epsilon, "above 0");
  require(s.grad_clip >= 0, "grad-clip", s.grad_clip, "0 or more");
  require(s.valid_fraction >= 0 && s.valid_fraction < 1, "valid-fraction", s.valid_fraction,
          "from 0 to below 1");
  require(s.valid_interval >= 0, "valid-interval", s.valid_interval, "0 or more");
  require(s.valid_samples >= 0, "valid-samples", s.valid_samples, "0 or more");
  require(s.max_skipped_steps >= 1, "max-skipped-steps", s.max_skipped_steps, "at least 1");
  require(s.checkpoint_interval >= 0, "checkpoint-interval", s.checkpoint_interval, "0 or more");
  check_comm_timeout(s.comm_timeout);
  require(s.keep_checkpoints >= 0, "keep-checkpoints", s.keep_checkpoints, "0 or more");
  if (!s.load.empty() && !s.resume.empty() && s.resume != "auto")
    throw ConfigurationError(
        fmt::format("--load {} with --resume {}: --resume goes on with a run, --load starts a new one from "
                    "weights; give one of them (--load beside --resume auto is for the first start)",
                    s.load, s.resume));
  require(s.log_interval >= 0, "log-interval", s.log_interval, "0 or more");
}

}  // namespace llama3d
