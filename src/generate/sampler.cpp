#include "generate/sampler.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/philox.hpp"

namespace llama3d {
namespace {

/// In [0, 1), of 53 bits.
double uniform(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position) {
  const PhiloxBlock block = philox4x32(philox_key(seed, "sampling"), position, sequence);
  const std::uint64_t bits = std::uint64_t{block[0]} << 32 | block[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

/// The first of the largest numbers; logits.size() where there is none.
std::size_t likeliest_of(std::span<const float> logits) {
  // Independent maxima, which compilers turn into vector instructions. A comparison with NaN is false.
  constexpr std::size_t lanes = 16;
  std::array<float, lanes> largest;
  largest.fill(-std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + lanes <= logits.size(); i += lanes)
    for (std::size_t lane = 0; lane < lanes; ++lane)
      largest[lane] = logits[i + lane] > largest[lane] ? logits[i + lane] : largest[lane];
  for (; i < logits.size(); ++i) largest[0] = logits[i] > largest[0] ? logits[i] : largest[0];
  const float most = *std::max_element(largest.begin(), largest.end());
  return static_cast<std::size_t>(std::find(logits.begin(), logits.end(), most) - logits.begin());
}

}  // namespace

void check_sampling(const SamplingOptions& o) {
  const auto refuse = [](const char* option, auto value, const char* right) {
    throw ConfigurationError(fmt::format("`{} {}`: must be {}", field_of(option), value, right));
  };
  if (!(o.temperature >= 0)) refuse("temperature", o.temperature, "0 (the likeliest token) or more");
  if (o.top_k < 0) refuse("top-k", o.top_k, "0 (all tokens) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top-p", o.top_p, "above 0 and at most 1");
  if (o.temperature == 0 && (o.top_k != 0 || o.top_p != 1))
    throw ConfigurationError(
        "`top_k` and `top_p`: have no effect at `temperature` 0, which always takes the likeliest token; "
        "give a "
        "temperature, or leave them out");
}

void TokenSampler::keep_top_k() {
  if (options_.top_k <= 0 || options_.top_k >= std::ssize(candidates_)) return;
  const auto end = candidates_.begin() + options_.top_k;
  std::nth_element(candidates_.begin(), end - 1, candidates_.end(), [](const auto& a, const auto& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  candidates_.erase(end, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(),
            [](const auto& a, const auto& b) { return a.token < b.token; });
}

double TokenSampler::keep_top_p(double total) {
  if (options_.top_p >= 1) return total;
  // Tokens below the mean of the rest beyond top-p can't be needed: all of them together are less than that
  // rest.
  const double least = (1 - options_.top_p) * total / static_cast<double>(candidates_.size());
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < candidates_.size(); ++i)
    if (weights_[i] >= least)
      order.push_back(i);
    else
      weights_[i] = 0;
  // Likeliest first, sorted no further than needed.
  const auto likelier = [&](std::size_t a, std::size_t b) {
    return weights_[a] != weights_[b] ? weights_[a] > weights_[b] : a < b;
  };
  double kept = 0;
  std::size_t count = 0;
  for (std::size_t sorted = 0; kept < options_.top_p * total && count < order.size(); ++count) {
    if (count == sorted) {
      sorted = std::min(order.size(), std::max<std::size_t>(64, 4 * sorted));
      const auto begin = order.begin() + static_cast<std::ptrdiff_t>(count);
      std::partial_sort(begin, order.begin() + static_cast<std::ptrdiff_t>(sorted), order.end(), likelier);
    }
    kept += weights_[order[count]];
  }
  for (std::size_t i = count; i < order.size(); ++i) weights_[order[i]] = 0;
  return kept;
}

std::uint32_t TokenSampler::choose(std::span<const float> logits, std::uint64_t sequence,
                                   std::uint64_t position) {
  const std::size_t likeliest = likeliest_of(logits);
  if (likeliest == logits.size() || !std::isfinite(logits[likeliest]))
    throw NumericsError(fmt::format(
        "sequence {}, position {}: the model's logits are no finite numbers; the weights are damaged or "
        "need another `precision`",
        sequence, position));
  if (options_.temperature <= 0) return static_cast<std::uint32_t>(likeliest);

  const float largest = logits[likeliest];
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i])) candidates_.push_back({logits[i], static_cast<std::uint32_t>(i)});
  keep_top_k();
  weights_.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    weights_.push_back(std::exp((double{c.logit} - largest) / options_.temperature));
    total += weights_.back();
  }
  double left = uniform(options_.seed, sequence, position) * keep_top_p(total);
  std::size_t last = 0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (weights_[i] == 0) continue;
    last = i;
    left -= weights_[i];
    if (left < 0) break;
  }
  return candidates_[last].token;
}

}  // namespace llama3d
