// Cross entropy over vocabulary shards against its definition in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

/// Losses and gradients of whole rows, from the definition.
struct Truth {
  std::vector<double> losses, gradient;
  /// Sizes of errors: a loss is a difference of numbers of about 1 more, and an exponential is off by as much
  /// as its exponent is large.
  std::vector<double> loss_terms, gradient_terms;
  double sum = 0, count = 0;

  Truth(const std::vector<float>& logits, const std::vector<std::int32_t>& targets, std::size_t vocabulary) {
    for (std::size_t t = 0; t < targets.size(); ++t) {
      const float* row = &logits[t * vocabulary];
      double exponentials = 0;
      for (std::size_t i = 0; i < vocabulary; ++i) exponentials += std::exp(double{row[i]} - row[0]);
      const bool valid = targets[t] >= 0;
      const auto target = static_cast<std::size_t>(std::max(0, targets[t]));
      losses.push_back(valid ? std::log(exponentials) + row[0] - row[target] : 0.0);
      loss_terms.push_back(valid ? 1 + losses.back() : 0);
      const double largest = *std::max_element(row, row + vocabulary);
      for (std::size_t i = 0; i < vocabulary; ++i) {
        const double p = std::exp(double{row[i]} - row[0]) / exponentials;
        gradient.push_back(valid ? p - (i == target ? 1 : 0) : 0);
        gradient_terms.push_back(valid ? p * (1 + largest - row[i]) + (i == target ? 1 : 0) : 0);
      }
      sum += losses.back();
      count += valid;
    }
  }
};

struct Shards {
  std::vector<float> losses, gradient;
  std::vector<double> totals;
};

/// The operations as ranks run them: `shards` of `width` rows each hold `vocabulary` logits between them, the
/// rest is padding (NaN, which must not matter).
Shards run(Machine& m, DType dtype, const std::vector<float>& logits,
           const std::vector<std::int32_t>& targets, std::int64_t vocabulary, std::int64_t shards,
           std::int64_t width, bool gradient) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const Buffer target(m, {rows}, targets), statistics(m, DType::fp32, {shards, rows, 3});
  std::vector<Buffer> parts;
  for (std::int64_t s = 0; s < shards; ++s) {
    std::vector<float> part;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t i = s * width; i < (s + 1) * width; ++i) {
        part.push_back(i < vocabulary ? logits[static_cast<std::size_t>(t * vocabulary + i)]
                                      : std::numeric_limits<float>::quiet_NaN());
      }
    }
    parts.emplace_back(m, dtype, Shape{rows, width}, part);
  }
  const auto columns = [&](std::int64_t s) {
    return std::clamp<std::int64_t>(vocabulary - s * width, 0, width);
  };
  for (std::int64_t s = 0; s < shards; ++s) {
    m.kernels().cross_entropy_statistics(parts[static_cast<std::size_t>(s)], target, s * width, columns(s),
                                         statistics.tensor().slice(s, s + 1), *m.stream);
  }
  Shards result;
  std::vector<std::vector<float>> gradients;
  for (std::int64_t s = 0; s < shards; ++s) {
    const Buffer losses(m, DType::fp32, {rows}), totals(m, {2}, std::vector<double>{100, 10});
    const Buffer& part = parts[static_cast<std::size_t>(s)];
    m.kernels().cross_entropy_finish(part, target, s * width, columns(s), statistics, gradient, losses,
                                     totals, *m.stream);
    // Every shard must come to the same losses and totals.
    if (s > 0) BOOST_CHECK(result.losses == losses.read() && result.totals == totals.read_doubles());
    result.losses = losses.read();
    result.totals = totals.read_doubles();
    gradients.push_back(part.read());
  }
  for (std::size_t t = 0; gradient && t < targets.size(); ++t) {
    for (std::int64_t i = 0; i < shards * width; ++i) {
      const float value = gradients[static_cast<std::size_t>(i / width)][t * static_cast<std::size_t>(width) +
                                                                         static_cast<std::size_t>(i % width)];
      if (i < vocabulary) {
        result.gradient.push_back(value);
      } else {
        BOOST_CHECK_EQUAL(value, 0);
      }
    }
  }
  return result;
}

std::vector<std::int32_t> targets_of(std::int64_t rows, std::int64_t vocabulary) {
  std::vector<std::int32_t> targets;
  for (std::int64_t t = 0; t < rows; ++t) {
    targets.push_back(t % 4 == 3 ? -100 : static_cast<std::int32_t>(t * 7 % vocabulary));
  }
  return targets;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(loss)

BOOST_DATA_TEST_CASE(shards_give_the_whole_softmax,
                     data::make(machines()) * data::make(reals()) * data::make({1, 2, 3, 4}), machine, dtype,
                     shards) {
  for (const auto& [rows, vocabulary] :
       // Blocks of a GPU take 4096 logits at once, four times; 256 and 1024 rows.
       {std::array<std::int64_t, 2>{0, 10},
        {1, 1},
        {9, 37},
        {120, 259},
        {5, 128256},
        {2, 4095},
        {2, 4097},
        {2, 16384},
        {2, 16393},
        {257, 10},
        {1025, 10}}) {
    const auto logits = random_values(rows * vocabulary, dtype, 71, 3);
    const auto targets = targets_of(rows, vocabulary);
    // The width of a shard is rounded up to 8: some shards hold padding, at one logit most hold nothing else.
    const std::int64_t width = ((vocabulary + shards - 1) / shards + 7) / 8 * 8;
    const Truth truth(logits, targets, static_cast<std::size_t>(vocabulary));
    const Shards actual = run(machine.get(), dtype, logits, targets, vocabulary, shards, width, true);
    const double sums = std::min(4 * tolerance(DType::fp32, vocabulary), most(DType::fp32));
    CHECK_AGREES("cross_entropy losses", actual.losses, truth.losses, Rows{{rows}, truth.loss_terms}, sums);
    CHECK_AGREES("cross_entropy gradient", actual.gradient, truth.gradient,
                 Rows{{rows, vocabulary}, truth.gradient_terms}, sums + tolerance(dtype, 1));
    CHECK_AGREES("cross_entropy totals", actual.totals,
                 std::vector<double>{100 + truth.sum, 10 + truth.count}, Rows{{2}}, sums);
  }
}

BOOST_DATA_TEST_CASE(without_gradient_logits_stay, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  const auto values = random_values(6 * 12, dtype, 72);
  const Buffer logits(m, dtype, {6, 12}, values), targets(m, {6}, targets_of(6, 12)),
      statistics(m, DType::fp32, {1, 6, 3});
  const Buffer losses(m, DType::fp32, {6}), totals(m, {2}, std::vector<double>{0, 0});
  m.kernels().cross_entropy_statistics(logits, targets, 0, 12, statistics, *m.stream);
  m.kernels().cross_entropy_finish(logits, targets, 0, 12, statistics, false, losses, totals, *m.stream);
  BOOST_CHECK(logits.read() == values);
  BOOST_CHECK_EQUAL(totals.read_doubles()[1], 5);
}

BOOST_DATA_TEST_CASE(statistics_of_a_shard, data::make(machines()), machine) {
  Machine& m = machine.get();
  const Buffer logits(m, DType::fp32, {2, 3}, {0, std::log(2.0f), 99, 1, 1, 99}),
      targets(m, {2}, std::vector<std::int32_t>{6, 4});
  const Buffer statistics(m, DType::fp32, {2, 3}), none(m, DType::fp32, {2, 3});
  m.kernels().cross_entropy_statistics(logits, targets, 5, 2, statistics, *m.stream);
  CHECK_AGREES("cross_entropy_statistics", statistics.read(),
               std::vector<double>{std::log(2.0), 1.5, std::log(2.0), 1, 2, 0}, Rows{{2, 3}},
               tolerance(DType::fp32, 2));
  m.kernels().cross_entropy_statistics(logits, targets, 5, 0, none, *m.stream);
  const float lowest = -std::numeric_limits<float>::infinity();
  BOOST_CHECK(none.read() == (std::vector<float>{lowest, 0, 0, lowest, 0, 0}));
}

BOOST_DATA_TEST_CASE(large_logits_do_not_overflow, data::make(machines()), machine) {
  const std::vector<float> logits = {1000, 999, -1000, -1000, -1001, -3000};
  const std::vector<std::int32_t> targets = {1, 0};
  const Truth truth(logits, targets, 3);
  const Shards actual = run(machine.get(), DType::fp32, logits, targets, 3, 2, 2, true);
  // 1000 and 999 round to 2^-14 of their size after a difference of about 1: exact here, so only the sums
  // count.
  const double sums = 4 * tolerance(DType::fp32, 3);
  CHECK_AGREES("cross_entropy losses", actual.losses, truth.losses, Rows{{2}, truth.loss_terms}, sums);
  CHECK_AGREES("cross_entropy gradient", actual.gradient, truth.gradient, Rows{{2, 3}, truth.gradient_terms},
               sums);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
