#include "train/summary.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "train/run_record.hpp"

namespace llama3d {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::string summary_table(const RunShape& shape, std::size_t memory_bytes, std::vector<double> step_seconds,
                          std::int64_t all_tokens, std::optional<double> peak_flops) {
  if (step_seconds.empty()) return "no step was run: there are as many as `steps`, or more, already";
  const double step_tokens = static_cast<double>(all_tokens) / static_cast<double>(step_seconds.size());
  if (step_seconds.size() > 1) step_seconds.erase(step_seconds.begin());
  const double seconds = median(std::move(step_seconds));
  const double tokens = step_tokens / seconds / shape.grid.world();
  const std::string mfu =
      peak_flops
          ? fmt::format("{:.1f}%",
                        100 * tokens * shape.model.training_flops_per_token(shape.seq_length) / *peak_flops)
          : "-";
  constexpr const char* row = "{:<{}} {:>4} {:>8} {:>9} {:>7} {:>11} {:>9} {:>15} {:>6}";
  const std::string name = method(shape);
  return fmt::format(row, "method", name.size(), "mbs", "grad acc", "global bs", "seqlen", "memory/rank",
                     "sec/iter", "tokens/sec/rank", "MFU") +
         '\n' +
         fmt::format(row, name, name.size(), shape.micro_batch_size, shape.micro_batches(),
                     shape.global_batch(), shape.seq_length, format_bytes(memory_bytes),
                     fmt::format("{:.4f}", seconds), fmt::format("{:.0f}", tokens), mfu);
}

}  // namespace llama3d
