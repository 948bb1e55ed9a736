// Gradient norm, clipping and AdamW against double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr AdamWStep base_step{.learning_rate = 1e-2f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .epsilon = 1e-8f,
                              .weight_decay = 0.1f,
                              .step = 1,
                              .rounding_seed = 9,
                              .first_element = 0};

/// n parameters with their moments, in double.
struct Truth {
  std::vector<double> weight, average, square;

  void update(const AdamWStep& s, const std::vector<float>& gradient, double scale) {
    for (std::size_t i = 0; i < weight.size(); ++i) {
      const double g = gradient[i] * scale;
      average[i] = double{s.beta1} * average[i] + (1 - double{s.beta1}) * g;
      square[i] = double{s.beta2} * square[i] + (1 - double{s.beta2}) * g * g;
      const double first = average[i] / (1 - std::pow(double{s.beta1}, double(s.step)));
      const double second = square[i] / (1 - std::pow(double{s.beta2}, double(s.step)));
      weight[i] -= s.learning_rate * (first / (std::sqrt(second) + s.epsilon) + s.weight_decay * weight[i]);
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
  for (const std::int64_t n : {0, 1, 1000, 100003}) {
    const auto values = random_values(n, dtype, 81);
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

BOOST_DATA_TEST_CASE(adamw_follows_the_formula_for_many_steps,
                     data::make(machines()) * data::make(reals()) * data::make(reals()) *
                         data::make({false, true}),
                     machine, compute, gradient_type, with_master) {
  if (compute == DType::bf16 && !with_master) return;  // Random rounding: below.
  Machine& m = machine.get();
  for (const std::int64_t n : {0, 1, 37, 30001}) {
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
      m.kernels().adamw(s, parameter, with_master ? master.tensor() : Tensor(),
                        Buffer(m, gradient_type, {n}, gradient), average, square, scale, *m.stream);
      truth.update(s, gradient, 0.25);
    }
    CHECK_AGREES(average.read(), truth.average, tolerance(DType::fp32, 5));
    CHECK_AGREES(square.read(), truth.square, tolerance(DType::fp32, 5));
    CHECK_AGREES(parameter.read(), truth.weight, tolerance(compute, 5));
    if (with_master) {
      CHECK_AGREES(master.read(), truth.weight, tolerance(DType::fp32, 5));
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
  m.kernels().adamw(base_step, parameter, {}, gradient, first, second, scale, *m.stream);
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
  m.kernels().adamw(step, parameter, {}, Buffer(m, DType::fp32, {n}, gradient), average, square,
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

BOOST_DATA_TEST_CASE(random_rounding_depends_on_the_global_index, data::make(machines()), machine) {
  Machine& m = machine.get();
  constexpr std::int64_t n = 1000, cut = 333;
  const auto weight = random_values(n, DType::bf16, 86), gradient = random_values(n, DType::fp32, 87);
  const auto run = [&](std::int64_t begin, std::int64_t end, std::uint64_t seed) {
    const auto part = [&](const std::vector<float>& v) {
      return std::vector<float>(v.begin() + begin, v.begin() + end);
    };
    AdamWStep step = base_step;
    step.first_element = 5000 + begin;
    step.rounding_seed = seed;
    const Buffer parameter(m, DType::bf16, {end - begin}, part(weight)),
        g(m, DType::fp32, {end - begin}, part(gradient));
    const std::vector<float> zero(static_cast<std::size_t>(end - begin), 0.0f);
    const Buffer average(m, DType::bf16, {end - begin}, zero), square(m, DType::bf16, {end - begin}, zero);
    m.kernels().adamw(step, parameter, {}, g, average, square, Buffer(m, DType::fp32, {1}, {1}), *m.stream);
    auto all = parameter.read();
    for (const auto& state : {average.read(), square.read()})
      all.insert(all.end(), state.begin(), state.end());
    return all;
  };
  const auto whole = run(0, n, 3), left = run(0, cut, 3), right = run(cut, n, 3);
  for (std::size_t state = 0; state < 3; ++state) {
    BOOST_CHECK(std::equal(&left[state * cut], &left[state * cut] + cut, &whole[state * n]));
    BOOST_CHECK(std::equal(&right[state * (n - cut)], &right[state * (n - cut)] + (n - cut),
                           &whole[state * n + cut]));
  }
  BOOST_CHECK(run(0, n, 4) != whole);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
