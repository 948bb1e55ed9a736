// RMSNorm against its definition in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr float epsilon = 1e-5f;
const std::vector<std::array<std::int64_t, 2>> sizes = {{0, 8},    {1, 1},   {1, 100}, {5, 33},    {67, 130},
                                                        {300, 64}, {3, 255}, {3, 257}, {300, 1027}};
/// As wide as models are, with more rows than a large GPU takes at once.
const std::vector<std::array<std::int64_t, 2>> wide_sizes = {
    {1100, 1024},
    {600, 2048},
    {300, 4096},
    {150, 8192},
    {3, 16384},
    // A packet less and more than the widths at which kernels change.
    {9, 1016},
    {9, 1032},
    {9, 2056},
    {9, 4104},
    {9, 8184},
    {9, 8200},
    {9, 16376}};

/// A case of T rows of C, with the truth in double.
struct Case {
  std::int64_t rows, columns;
  std::vector<float> x, w;
  std::vector<double> rstd, y;

  Case(std::int64_t t, std::int64_t c, DType dtype, std::vector<float> input)
      : rows(t), columns(c), x(std::move(input)), w(random_values(c, dtype, 12, 0.3f, 1)) {
    for (std::int64_t i = 0; i < t; ++i) {
      double squares = 0;
      for (std::int64_t j = 0; j < c; ++j) squares += double{at(x, i, j)} * at(x, i, j);
      rstd.push_back(1 / std::sqrt(squares / static_cast<double>(c) + epsilon));
      for (std::int64_t j = 0; j < c; ++j)
        y.push_back(at(x, i, j) * rstd.back() * w[static_cast<std::size_t>(j)]);
    }
  }
  template <class T>
  T at(const std::vector<T>& values, std::int64_t i, std::int64_t j) const {
    return values[static_cast<std::size_t>(i * columns + j)];
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(norm)

BOOST_DATA_TEST_CASE(forward_is_the_definition,
                     data::make(machines()) * data::make(reals()) * data::make({false, true}), machine, dtype,
                     wide) {
  Machine& m = machine.get();
  // Epsilon decides where squares are as small as it is.
  for (const auto& [t, c] : wide ? wide_sizes : sizes)
    for (const float deviation : {3.0f, 0.003f}) {
      const Case truth(t, c, dtype, random_values(t * c, dtype, 11, deviation));
      const Buffer y(m, dtype, {t, c}), rstd(m, DType::fp32, {t});
      m.kernels().rms_norm_forward(Buffer(m, dtype, {t, c}, truth.x), Buffer(m, dtype, {c}, truth.w), epsilon,
                                   y, rstd, *m.stream);
      // Two roundings to bf16: of the normalized value and of the product.
      CHECK_AGREES("rms_norm_forward y", y.read(), truth.y, Rows{{t, c}}, 2 * tolerance(dtype, c));
      CHECK_AGREES("rms_norm_forward rstd", rstd.read(), truth.rstd, Rows{{t}}, tolerance(DType::fp32, c));
    }
}

BOOST_DATA_TEST_CASE(the_normalized_value_is_rounded_before_the_weight, data::make(machines()), machine) {
  Machine& m = machine.get();
  const std::int64_t c = 64;
  const auto x = random_values(c, DType::bf16, 13), w = random_values(c, DType::bf16, 14);
  const Buffer y(m, DType::bf16, {1, c}), rstd(m, DType::fp32, {1});
  m.kernels().rms_norm_forward(Buffer(m, DType::bf16, {1, c}, x), Buffer(m, DType::bf16, {c}, w), epsilon, y,
                               rstd, *m.stream);
  std::vector<float> normalized = x;
  for (auto& value : normalized) value *= rstd.read()[0];
  normalized = rounded(normalized, DType::bf16);
  for (std::size_t i = 0; i < normalized.size(); ++i) normalized[i] *= w[i];
  BOOST_CHECK(y.read() == rounded(normalized, DType::bf16));
}

BOOST_DATA_TEST_CASE(adding_first_is_bit_equal_to_two_steps,
                     data::make(machines()) * data::make(reals()) * data::make({0, 1, 2}), machine, dtype,
                     alias) {
  Machine& m = machine.get();
  auto all_sizes = sizes;
  if (alias == 1) all_sizes.insert(all_sizes.end(), wide_sizes.begin(), wide_sizes.end());
  for (const auto& [t, c] : all_sizes) {
    const auto a = random_values(t * c, dtype, 15), b = random_values(t * c, dtype, 16);
    const Buffer w(m, dtype, {c}, random_values(c, dtype, 17));
    const Buffer residual(m, dtype, {t, c}, a), delta(m, dtype, {t, c}, b), separate(m, dtype, {t, c});
    const Buffer sum(m, dtype, {t, c}), y(m, dtype, {t, c}), rstd(m, DType::fp32, {t});
    m.kernels().add(residual, delta, sum, *m.stream);
    m.kernels().rms_norm_forward(sum, w, epsilon, y, rstd, *m.stream);
    const Buffer& fused = alias == 0 ? separate : alias == 1 ? residual : delta;
    const Buffer fused_y(m, dtype, {t, c}), fused_rstd(m, DType::fp32, {t});
    m.kernels().add_rms_norm_forward(residual, delta, w, epsilon, fused, fused_y, fused_rstd, *m.stream);
    BOOST_CHECK(fused.read() == sum.read());
    BOOST_CHECK(fused_y.read() == y.read());
    BOOST_CHECK(fused_rstd.read() == rstd.read());
  }
}

namespace {

/// d(sum of dy y)/dx by the quotient rule, and the gradient of w, in double.
struct Gradient {
  std::vector<double> dx, dw;
  /// Of each element the size of the terms that it is a sum of, which may cancel: with one column those of dx
  /// are equal.
  std::vector<double> dx_terms, dw_terms;

  Gradient(const Case& truth, const std::vector<float>& dy)
      : dw(truth.w.size(), 0.0), dw_terms(truth.w.size(), 0.0) {
    for (std::int64_t i = 0; i < truth.rows; ++i) {
      const double rstd = truth.rstd[static_cast<std::size_t>(i)];
      double along = 0, squares = 0;
      for (std::int64_t j = 0; j < truth.columns; ++j) {
        const auto column = static_cast<std::size_t>(j);
        const double gradient = truth.at(dy, i, j), x = truth.at(truth.x, i, j),
                     term = gradient * truth.w[column] * x;
        along += term;
        squares += term * term;
        dw[column] += gradient * x * rstd;
        dw_terms[column] = std::hypot(dw_terms[column], gradient * x * rstd);
      }
      for (std::int64_t j = 0; j < truth.columns; ++j) {
        const double direct = truth.at(dy, i, j) * truth.w[static_cast<std::size_t>(j)] * rstd,
                     projected =
                         truth.at(truth.x, i, j) * rstd * rstd * rstd / static_cast<double>(truth.columns);
        dx.push_back(direct - projected * along);
        dx_terms.push_back(std::hypot(direct, projected * along, projected * std::sqrt(squares)));
      }
    }
  }
  void add_around(const std::vector<float>& around) {
    for (std::size_t i = 0; i < around.size(); ++i) {
      dx[i] += around[i];
      dx_terms[i] = std::hypot(dx_terms[i], around[i]);
    }
  }
  void add_before(const std::vector<float>& before) {
    for (std::size_t i = 0; i < before.size(); ++i) {
      dw[i] += before[i];
      dw_terms[i] = std::hypot(dw_terms[i], before[i]);
    }
  }
};

}  // namespace

BOOST_DATA_TEST_CASE(backward_is_the_derivative,
                     data::make(machines()) * data::make(reals()) * data::make(reals()) *
                         data::make({false, true}),
                     machine, dtype, gradient, with_residual) {
  Machine& m = machine.get();
  auto all_sizes = sizes;
  if (with_residual) all_sizes.insert(all_sizes.end(), wide_sizes.begin(), wide_sizes.end());
  for (const auto& [t, c] : all_sizes) {
    const Case truth(t, c, dtype, random_values(t * c, dtype, 11, 3));
    const auto dy = random_values(t * c, dtype, 18), around = random_values(t * c, dtype, 19);
    const auto before = random_values(c, gradient, 20);
    Gradient expected(truth, dy);
    const Buffer dx(m, dtype, {t, c}, around), dw(m, gradient, {c}, before);
    const Buffer rstd(m, DType::fp32, {t}, std::vector<float>(truth.rstd.begin(), truth.rstd.end()));
    m.kernels().rms_norm_backward(Buffer(m, dtype, {t, c}, dy), Buffer(m, dtype, {t, c}, truth.x),
                                  Buffer(m, dtype, {c}, truth.w), rstd,
                                  with_residual ? dx.tensor() : Tensor(), dx, dw, *m.stream);
    if (with_residual) expected.add_around(around);
    expected.add_before(before);
    CHECK_AGREES("rms_norm_backward dx", dx.read(), expected.dx,
                 Rows{{t, c}, joined(expected.dx, expected.dx_terms)}, tolerance(dtype, c));
    // dw multiplies the normalized value after its rounding to the compute dtype. An element is off by what
    // the roundings of a column have added up to, in the worst of thousands of columns.
    CHECK_AGREES("rms_norm_backward dw", dw.read(), expected.dw,
                 Rows{{c}, joined(expected.dw, expected.dw_terms), 2},
                 tolerance(gradient, t) + tolerance(dtype, 1));
  }
}

BOOST_DATA_TEST_CASE(backward_agrees_with_finite_differences, data::make(machines()), machine) {
  Machine& m = machine.get();
  constexpr std::int64_t c = 24;
  auto x = random_values(c, DType::fp32, 21);
  const auto dy = random_values(c, DType::fp32, 22);
  const Case truth(1, c, DType::fp32, x);
  const Buffer dx(m, DType::fp32, {1, c}), dw(m, DType::fp32, {c}, std::vector<float>(c, 0.0f));
  m.kernels().rms_norm_backward(Buffer(m, DType::fp32, {1, c}, dy), Buffer(m, DType::fp32, {1, c}, x),
                                Buffer(m, DType::fp32, {c}, truth.w),
                                Buffer(m, DType::fp32, {1}, {static_cast<float>(truth.rstd[0])}), {}, dx, dw,
                                *m.stream);
  std::vector<double> differences;
  for (std::size_t j = 0; j < c; ++j) {
    const auto objective = [&](float value) {
      auto moved = x;
      moved[j] = value;
      double sum = 0;
      const Case at(1, c, DType::fp32, moved);
      for (std::size_t i = 0; i < c; ++i) sum += dy[i] * at.y[i];
      return sum;
    };
    const float up = x[j] + 1e-3f, down = x[j] - 1e-3f;
    differences.push_back((objective(up) - objective(down)) / (double{up} - down));
  }
  // The step squared times third derivatives of order one.
  CHECK_AGREES("rms_norm_backward dx", dx.read(), differences, Rows{{1}}, 1e-5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
