#pragma once
// The next token from its logits.

#include <cstdint>
#include <span>
#include <vector>

namespace llama3d {

struct SamplingOptions {
  double temperature = 0;  ///< divides the logits; 0: always the likeliest token
  std::int64_t top_k = 0;  ///< only the so many likeliest tokens; 0: all
  double top_p = 1;        ///< only the likeliest tokens that together have this probability
  std::uint64_t seed = 1;
};

/// Throws ConfigurationError naming the option.
void check_sampling(const SamplingOptions& options);

/// Temperature, then top-k, then top-p, as transformers has them. The draw depends on the logits, the
/// seed, the sequence's number and the token's position alone, so neither on what else is decoded nor on the
/// grid.
class TokenSampler {
 public:
  explicit TokenSampler(const SamplingOptions& options) : options_(options) {}

  /// Among equal tokens the one with the lowest id comes first. Throws NumericsError when no logit is a
  /// number.
  std::uint32_t choose(std::span<const float> logits, std::uint64_t sequence, std::uint64_t position);

 private:
  struct Candidate {
    float logit;
    std::uint32_t token;
  };
  void keep_top_k();
  /// Returns the weight of what is left.
  double keep_top_p(double total);

  SamplingOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;  ///< of each candidate: exp((logit - largest) / temperature)
};

}  // namespace llama3d
