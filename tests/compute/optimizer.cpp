// Gradient norm, clipping and AdamW against double.
#include <bit>
#include <tuple>

#include "base/philox.hpp"
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr AdamWStep base_step{
    .learning_rate = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f, .epsilon = 1e-8f, .step = 1};
constexpr float weight_decay = 0.1f;

/// All n elements of a parameter of one row.
std::vector<AdamWPiece> whole(std::int64_t n, std::uint64_t key = 9) {
  return {{.elements = n,
           .weight_decay = weight_decay,
           .rounding_key = key,
           .columns = n + 1,
           .global_columns = n + 1}};
}

/// n parameters with their moments, in double.
struct Truth {
  std::vector<double> weight, average, square;
  /// What they are sums of, without signs: the sizes of their errors.
  std::vector<double> weight_terms, average_terms;

  Truth(std::vector<double> w, std::vector<double> a, std::vector<double> s)
      : weight(std::move(w)),
        average(std::move(a)),
        square(std::move(s)),
        weight_terms(weight.size()),
        average_terms(average.size()) {
    for (std::size_t i = 0; i < weight.size(); ++i) weight_terms[i] = std::abs(weight[i]);
    for (std::size_t i = 0; i < average.size(); ++i) average_terms[i] = std::abs(average[i]);
  }

  void update(const AdamWStep& s, const std::vector<float>& gradient, double scale) {
    for (std::size_t i = 0; i < weight.size(); ++i) {
      const double g = gradient[i] * scale;
      average[i] = double{s.beta1} * average[i] + (1 - double{s.beta1}) * g;
      square[i] = double{s.beta2} * square[i] + (1 - double{s.beta2}) * g * g;
      average_terms[i] = double{s.beta1} * average_terms[i] + (1 - double{s.beta1}) * std::abs(g);
      const double correction = 1 / (1 - std::pow(double{s.beta1}, double(s.step)));
      const double second = square[i] / (1 - std::pow(double{s.beta2}, double(s.step)));
      const double rate = s.learning_rate * correction / (std::sqrt(second) + s.epsilon),
                   decay = s.learning_rate * double{weight_decay};
      weight_terms[i] += rate * average_terms[i] + decay * std::abs(weight[i]);
      weight[i] -= rate * average[i] + decay * weight[i];
    }
  }
};

std::vector<double> doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(optimizer)

BOOST_DATA_TEST_CASE(squared_norm_adds_in_double, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  // The last two: as many as all blocks of a GPU take at once, in packets of 8, and one more.
  for (const std::int64_t n : {0, 1, 1000, 100003, 4096, 4104, 16392, 4194304, 4194312}) {
    const auto some = random_values(std::min<std::int64_t>(n, 100003), dtype, 81);
    std::vector<float> values;
    for (std::int64_t i = 0; i < n; ++i) values.push_back(some[static_cast<std::size_t>(i % 100003)]);
    double expected = 5;
    for (const double value : values) expected += value * value;
    const Buffer sum(m, {1}, std::vector<double>{5});
    m.kernels().squared_norm(Buffer(m, dtype, {n}, values), sum, *m.stream);
    // Sums of n doubles in another order: 2^-53 sqrt(n), with room.
    BOOST_CHECK_CLOSE_FRACTION(sum.read_doubles()[0], expected, 1e-12);
  }
}

BOOST_DATA_TEST_CASE(gradient_scale_means_and_clips, data::make(machines()), machine) {
  Machine& m = machine.get();
  const double infinity = std::numeric_limits<double>::infinity(),
               nan = std::numeric_limits<double>::quiet_NaN();
  struct Row {
    std::vector<double> totals;
    float max_norm;
    double scale, loss, norm;
  };
  for (const Row& row : {Row{{400, 30, 10}, 0, 0.1, 3, 2}, Row{{400, 30, 10}, -1, 0.1, 3, 2},
                         Row{{400, 30, 10}, 4, 0.1, 3, 2}, Row{{400, 30, 10}, 1, 0.1 / (2 + 1e-6), 3, 2},
                         Row{{0, 30, 10}, 1, 0.1, 3, 0}, Row{{infinity, 30, 10}, 1, 0, 3, infinity},
                         Row{{nan, 30, 10}, 0, 0, 3, nan}, Row{{400, nan, 10}, 0, 0, nan, 2},
                         Row{{400, infinity, 10}, 1, 0, infinity, 2}, Row{{0, 0, 0}, 1, 0, nan, nan}}) {
    const Buffer scale(m, DType::fp32, {1}), report(m, DType::fp32, {2});
    m.kernels().gradient_scale(Buffer(m, {3}, row.totals), row.max_norm, scale, report, *m.stream);
    const auto same = [](float actual, double expected) {
      return std::isnan(expected) ? std::isnan(actual) : actual == static_cast<float>(expected);
    };
    BOOST_CHECK_CLOSE_FRACTION(scale.read()[0], row.scale, 0x1p-23);
    BOOST_CHECK(same(report.read()[0], row.loss) && same(report.read()[1], row.norm));
  }
}

// Without master weights those in bf16 are rounded at random: below.
const auto types_and_masters =
    data::make({DType::fp32, DType::fp32, DType::bf16}) ^ data::make({false, true, true});

BOOST_DATA_TEST_CASE(adamw_follows_the_formula_for_many_steps,
                     data::make(machines()) * data::make(reals()) * types_and_masters, machine, gradient_type,
                     compute, with_master) {
  Machine& m = machine.get();
  // A block of a GPU takes 2048 in packets, 256 without.
  for (const std::int64_t n : {0, 1, 37, 30001, 255, 257, 2048, 2056, 30000}) {
    const auto weight = random_values(n, compute, 82);
    Truth truth{doubles(weight), doubles(std::vector<float>(weight.size())),
                doubles(std::vector<float>(weight.size()))};
    const std::vector<float> zero(weight.size(), 0.0f);
    const Buffer parameter(m, compute, {n}, weight), master(m, DType::fp32, {n}, weight),
        scale(m, DType::fp32, {1}, {0.25f});
    const Buffer average(m, DType::fp32, {n}, zero), square(m, DType::fp32, {n}, zero);
    for (int step = 1; step <= 5; ++step) {
      AdamWStep s = base_step;
      s.step = step;
      const auto gradient = random_values(n, gradient_type, 83 + static_cast<unsigned>(step));
      m.kernels().adamw(s, whole(n), parameter, with_master ? master.tensor() : Tensor(),
                        Buffer(m, gradient_type, {n}, gradient), average, square, scale, *m.stream);
      truth.update(s, gradient, 0.25);
    }
    const double sums = tolerance(DType::fp32, 5);
    CHECK_AGREES("adamw exp_avg", average.read(), truth.average, Rows{{n}, truth.average_terms}, sums);
    CHECK_AGREES("adamw exp_avg_sq", square.read(), truth.square, Rows{{n}}, sums);
    CHECK_AGREES("adamw parameter", parameter.read(), truth.weight, Rows{{n}, truth.weight_terms},
                 tolerance(compute, 5));
    if (with_master) {
      CHECK_AGREES("adamw master", master.read(), truth.weight, Rows{{n}, truth.weight_terms}, sums);
      BOOST_CHECK(parameter.read() == rounded(master.read(), compute));
    }
  }
}

BOOST_DATA_TEST_CASE(a_zero_scale_leaves_everything, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  const auto weight = random_values(100, dtype, 84), average = random_values(100, dtype, 85);
  const Buffer parameter(m, dtype, {100}, weight), first(m, dtype, {100}, average),
      second(m, dtype, {100}, weight);
  const Buffer gradient(m, dtype, {100}), scale(m, DType::fp32, {1}, {0.0f});
  m.kernels().adamw(base_step, whole(100), parameter, {}, gradient, first, second, scale, *m.stream);
  BOOST_CHECK(parameter.read() == weight && first.read() == average && second.read() == weight);
}

BOOST_DATA_TEST_CASE(bf16_states_round_without_bias, data::make(machines()), machine) {
  Machine& m = machine.get();
  constexpr std::int64_t n = 40000;
  // One weight many times: rounding to nearest would move all of them the same way, or none.
  const std::vector<float> weight(n, 1.0f), gradient(n, 0.3f), zero(n, 0.0f);
  Truth truth{{1.0}, {0.0}, {0.0}};
  AdamWStep step = base_step;
  step.learning_rate = 1e-3f;
  const Buffer parameter(m, DType::bf16, {n}, weight), average(m, DType::bf16, {n}, zero),
      square(m, DType::bf16, {n}, zero);
  m.kernels().adamw(step, whole(n), parameter, {}, Buffer(m, DType::fp32, {n}, gradient), average, square,
                    Buffer(m, DType::fp32, {1}, {1}), *m.stream);
  truth.update(step, {0.3f}, 1);
  const auto check = [&](const Buffer& buffer, double expected) {
    double mean = 0, apart = 0;
    for (const double value : buffer.read()) {
      mean += value / n;
      apart = std::max(apart, std::abs(value - expected) / expected);
    }
    // Neighbours are at most 2^-7 apart; the mean of n roundings between them deviates by 2^-8 / sqrt(n): 5
    // times.
    BOOST_CHECK_LE(apart, 0x1p-7);
    BOOST_CHECK_SMALL((mean - expected) / expected, 5 * 0x1p-8 / std::sqrt(double{n}));
  };
  check(parameter, truth.weight[0]);
  check(average, truth.average[0]);
  check(square, truth.square[0]);
}

/// A parameter of rows x columns, its gradient and its bf16 states, of which any block can be a shard.
struct Matrix {
  std::int64_t rows, columns;
  std::vector<float> weight = random_values(rows * columns, DType::bf16, 86);
  std::vector<float> gradient = random_values(rows * columns, DType::fp32, 87);

  /// Parameter, exp_avg and exp_avg_sq after an update of the shard of these columns, cut into pieces at
  /// `cuts` (elements of the shard), with some distance between the pieces in memory.
  std::vector<std::vector<float>> update(Machine& m, std::int64_t first_column, std::int64_t last_column,
                                         std::vector<std::int64_t> cuts, std::uint64_t key) const {
    const std::int64_t width = last_column - first_column, n = rows * width;
    std::vector<float> shard_weight, shard_gradient;
    for (std::int64_t l = 0; l < n; ++l) {
      const auto at = static_cast<std::size_t>(l / width * columns + first_column + l % width);
      shard_weight.push_back(weight[at]);
      shard_gradient.push_back(gradient[at]);
    }
    constexpr std::int64_t gap = 8;
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(n);
    std::vector<AdamWPiece> pieces;
    std::vector<float> w, g;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      pieces.push_back({.elements = cuts[i + 1] - cuts[i],
                        .parameter_begin = static_cast<std::int64_t>(w.size()),
                        .state_begin = cuts[i],
                        .weight_decay = weight_decay,
                        .rounding_key = key,
                        .shard_begin = cuts[i],
                        .columns = width,
                        .first_row = 3,
                        .first_column = first_column,
                        .global_columns = columns});
      w.insert(w.end(), shard_weight.begin() + cuts[i], shard_weight.begin() + cuts[i + 1]);
      g.insert(g.end(), shard_gradient.begin() + cuts[i], shard_gradient.begin() + cuts[i + 1]);
      w.insert(w.end(), gap, 7.0f);
      g.insert(g.end(), gap, 7.0f);
    }
    const auto extent = static_cast<std::int64_t>(w.size());
    const std::vector<float> zero(static_cast<std::size_t>(n), 0.0f);
    const Buffer parameter(m, DType::bf16, {extent}, w), average(m, DType::bf16, {n}, zero),
        square(m, DType::bf16, {n}, zero);
    m.kernels().adamw(base_step, pieces, parameter, {}, Buffer(m, DType::fp32, {extent}, g), average, square,
                      Buffer(m, DType::fp32, {1}, {1}), *m.stream);
    const auto after = parameter.read();
    std::vector<float> values;
    for (const AdamWPiece& piece : pieces) {
      const auto begin = after.begin() + piece.parameter_begin, end = begin + piece.elements;
      values.insert(values.end(), begin, end);
      for (auto between = end; between != end + gap; ++between) BOOST_CHECK_EQUAL(*between, 7.0f);
    }
    return {values, average.read(), square.read()};
  }
};

BOOST_DATA_TEST_CASE(random_rounding_does_not_depend_on_sharding, data::make(machines()), machine) {
  Machine& m = machine.get();
  for (const auto& [rows, columns, half] : {std::tuple{40, 64, 32}, {7, 37, 18}}) {
    const Matrix matrix{rows, columns};
    const auto whole = matrix.update(m, 0, columns, {}, 3);
    BOOST_CHECK(matrix.update(m, 0, columns, {8, 104, 211}, 3) == whole);
    BOOST_CHECK(matrix.update(m, 0, columns, {}, 4) != whole);
    const auto left = matrix.update(m, 0, half, {}, 3), right = matrix.update(m, half, columns, {}, 3);
    for (std::size_t state = 0; state < whole.size(); ++state)
      for (std::int64_t i = 0; i < rows * columns; ++i) {
        const std::int64_t row = i / columns, column = i % columns;
        const float value =
            column < half ? left[state][static_cast<std::size_t>(row * half + column)]
                          : right[state][static_cast<std::size_t>(row * (columns - half) + column - half)];
        BOOST_REQUIRE_EQUAL(value, whole[state][static_cast<std::size_t>(i)]);
      }
  }
}

BOOST_DATA_TEST_CASE(random_rounding_follows_the_contract, data::make(machines()), machine) {
  // The words that the contract names, applied here to an update computed on the oracle in fp32.
  Machine &m = machine.get(), &reference = oracle().get();
  constexpr std::int64_t n = 64;
  const auto weight = random_values(n, DType::bf16, 88), gradient = random_values(n, DType::fp32, 89);
  const std::vector<float> zero(n, 0.0f), one{1};
  const Buffer w(reference, DType::fp32, {n}, weight), a(reference, DType::fp32, {n}, zero),
      s(reference, DType::fp32, {n}, zero);
  reference.kernels().adamw(base_step, whole(n), w, {}, Buffer(reference, DType::fp32, {n}, gradient), a, s,
                            Buffer(reference, DType::fp32, {1}, one), *reference.stream);
  const Buffer parameter(m, DType::bf16, {n}, weight), average(m, DType::bf16, {n}, zero),
      square(m, DType::bf16, {n}, zero);
  m.kernels().adamw(base_step, whole(n), parameter, {}, Buffer(m, DType::fp32, {n}, gradient), average,
                    square, Buffer(m, DType::fp32, {1}, one), *m.stream);
  const auto cut = [](float value, std::uint32_t random) {
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(value) + (random & 0xffffu)) & 0xffff0000u);
  };
  int apart = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto bits = philox4x32(9, static_cast<std::uint64_t>(i) / 2, 1);
    const std::size_t h = 2 * (at % 2);
    apart += average.read()[at] != cut(a.read()[at], bits[h]);
    apart += square.read()[at] != cut(s.read()[at], bits[h] >> 16);
    apart += parameter.read()[at] != cut(w.read()[at], bits[h + 1]);
  }
  // A last bit of the fp32 value decides one rounding in 2^16.
  BOOST_CHECK_LE(apart, m.device->kind() == "cpu" ? 0 : 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
