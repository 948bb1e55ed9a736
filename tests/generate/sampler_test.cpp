// The choice of the next token.
#include "generate/sampler.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.hpp"

using namespace llama3d;

namespace {

constexpr int draws = 20000;
/// Five standard deviations of a frequency over all draws.
const double noise = 5 * std::sqrt(0.25 / draws);

const std::vector<float> logits = {0.0f, 2.0f, -1.0f, 1.0f, 1.5f, -30.0f};

std::map<std::uint32_t, double> frequencies(const SamplingOptions& options) {
  TokenSampler sampler(options);
  std::map<std::uint32_t, double> counts;
  for (int i = 0; i < draws; ++i)
    counts[sampler.choose(logits, 3, static_cast<std::uint64_t>(i))] += 1.0 / draws;
  return counts;
}

/// Softmax of the logits of these tokens alone.
std::map<std::uint32_t, double> softmax(const std::vector<std::uint32_t>& tokens, double temperature) {
  std::map<std::uint32_t, double> p;
  double total = 0;
  for (const auto t : tokens) total += p[t] = std::exp(double{logits[t]} / temperature);
  for (auto& [token, value] : p) value /= total;
  return p;
}

void check(const SamplingOptions& options, const std::vector<std::uint32_t>& tokens) {
  const auto actual = frequencies(options);
  for (const auto& [token, expected] : softmax(tokens, options.temperature))
    BOOST_CHECK_SMALL((actual.contains(token) ? actual.at(token) : 0) - expected, noise);
  for (const auto& [token, frequency] : actual)
    BOOST_CHECK_MESSAGE(std::find(tokens.begin(), tokens.end(), token) != tokens.end(),
                        "token " << token << " was drawn");
}

}  // namespace

BOOST_AUTO_TEST_CASE(without_temperature_the_likeliest) {
  TokenSampler sampler({});
  BOOST_CHECK_EQUAL(sampler.choose(logits, 0, 0), 1);
  const std::vector<float> alike = {1, 3, 3, 2};
  BOOST_CHECK_EQUAL(sampler.choose(alike, 0, 0), 1);
}

BOOST_AUTO_TEST_CASE(frequencies_are_those_of_the_softmax) {
  check({.temperature = 1}, {0, 1, 2, 3, 4, 5});
  check({.temperature = 0.5}, {0, 1, 2, 3, 4, 5});
  check({.temperature = 3}, {0, 1, 2, 3, 4, 5});
}

BOOST_AUTO_TEST_CASE(top_k_keeps_the_likeliest) {
  check({.temperature = 1, .top_k = 3}, {1, 3, 4});
  check({.temperature = 2, .top_k = 1}, {1});
  check({.temperature = 1, .top_k = 100}, {0, 1, 2, 3, 4, 5});
}

BOOST_AUTO_TEST_CASE(top_p_keeps_as_few_as_reach_it) {
  // At temperature 1 the likeliest three have 0.45, 0.27 and 0.17 of the probability.
  check({.temperature = 1, .top_p = 0.4}, {1});
  check({.temperature = 1, .top_p = 0.5}, {1, 4});
  check({.temperature = 1, .top_p = 0.8}, {1, 3, 4});
  check({.temperature = 1, .top_k = 2, .top_p = 0.99}, {1, 4});
}

BOOST_AUTO_TEST_CASE(top_p_among_many_tokens) {
  // All alike: as many as reach p, those of the lowest ids.
  const std::vector<float> flat(1000, 0.5f);
  TokenSampler sampler({.temperature = 1, .top_p = 0.5});
  std::uint32_t highest = 0;
  for (std::uint64_t i = 0; i < draws; ++i) highest = std::max(highest, sampler.choose(flat, 0, i));
  BOOST_CHECK_LE(highest, 500);
  BOOST_CHECK_GE(highest, 490);
}

BOOST_AUTO_TEST_CASE(draws_depend_on_seed_sequence_and_position_alone) {
  const SamplingOptions options{.temperature = 5, .seed = 9};
  TokenSampler a(options), b(options), other({.temperature = 5, .seed = 10});
  int seeds = 0, sequences = 0, positions = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    const auto token = a.choose(logits, 1, i);
    BOOST_CHECK_EQUAL(token, b.choose(logits, 1, i));
    b.choose(logits, 7, i);
    seeds += token != other.choose(logits, 1, i);
    sequences += token != a.choose(logits, 2, i);
    positions += token != a.choose(logits, 1, i + 1);
  }
  for (const int differences : {seeds, sequences, positions}) BOOST_CHECK_GT(differences, 30);
}

BOOST_AUTO_TEST_CASE(no_finite_logit_is_an_error) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  TokenSampler greedy({}), warm({.temperature = 1});
  for (TokenSampler* sampler : {&greedy, &warm}) {
    BOOST_CHECK_THROW(sampler->choose(std::vector<float>{nan, nan}, 0, 0), NumericsError);
    BOOST_CHECK_THROW(sampler->choose(std::vector<float>{1, infinity}, 0, 0), NumericsError);
    BOOST_CHECK_THROW(sampler->choose(std::vector<float>{-infinity}, 0, 0), NumericsError);
    BOOST_CHECK_EQUAL(sampler->choose(std::vector<float>{nan, 2, -infinity}, 0, 0), 1);
  }
}

BOOST_AUTO_TEST_CASE(options_out_of_bounds_are_named) {
  BOOST_CHECK_THROW(check_sampling({.temperature = -1}), ConfigurationError);
  BOOST_CHECK_THROW(check_sampling({.top_k = -1}), ConfigurationError);
  BOOST_CHECK_THROW(check_sampling({.top_p = 0}), ConfigurationError);
  BOOST_CHECK_THROW(check_sampling({.top_p = 1.5}), ConfigurationError);
  BOOST_CHECK_NO_THROW(check_sampling({.temperature = 1, .top_k = 5, .top_p = 1}));
}
