// linear_forward and its two gradients against sums in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

using Sizes = std::array<std::int64_t, 3>;  // T, N, K

/// values (rows, columns) = sum over k of a(row, k) b(k, column).
struct Gemm {
  std::int64_t rows, columns;
  std::vector<double> values;
  std::vector<double> terms;  ///< their sizes together, for errors that each term has a part in

  template <class A, class B>
  Gemm(std::int64_t row_count, std::int64_t column_count, std::int64_t inner, A a, B b)
      : rows(row_count), columns(column_count) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        double sum = 0, squares = 0;
        for (std::int64_t k = 0; k < inner; ++k) {
          const double term = double{a(i, k)} * b(k, j);
          sum += term;
          squares += term * term;
        }
        values.push_back(sum);
        terms.push_back(std::sqrt(squares));
      }
    }
  }
  /// Every element by itself: as large as it is, or as its terms.
  Rows each() const { return {{rows, columns}, joined(values, terms)}; }
};

/// Access to a row-major matrix.
auto matrix(const std::vector<float>& values, std::int64_t columns) {
  return [&values, columns](std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(i * columns + j)];
  };
}

auto transposed(const std::vector<float>& values, std::int64_t columns) {
  return [&values, columns](std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(j * columns + i)];
  };
}

const std::vector<Sizes> sizes = {{0, 5, 7},
                                  {1, 1, 1},
                                  {1, 48, 33},
                                  {7, 129, 65},
                                  {130, 65, 7},
                                  {600, 40, 24},
                                  {33, 300, 17},
                                  // Whole tiles, and a little more: of 512 rows here, of 64 to 256 on GPUs.
                                  {512, 64, 64},
                                  {513, 72, 64},
                                  {128, 128, 256},
                                  {136, 264, 264}};

}  // namespace

BOOST_AUTO_TEST_SUITE(matmul)

BOOST_DATA_TEST_CASE(forward_is_x_times_w_transposed, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& [t, n, k] : sizes) {
    const auto x = random_values(t * k, dtype, 1), w = random_values(n * k, dtype, 2);
    const Buffer y(m, dtype, {t, n});
    m.kernels().linear_forward(Buffer(m, dtype, {t, k}, x), Buffer(m, dtype, {n, k}, w), y, *m.stream);
    const Gemm expected(t, n, k, matrix(x, k), transposed(w, k));
    CHECK_AGREES("linear_forward y", y.read(), expected.values, expected.each(), tolerance(dtype, k));
  }
}

BOOST_DATA_TEST_CASE(input_gradient_is_dy_times_w, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& [t, n, k] : sizes) {
    const auto dy = random_values(t * n, dtype, 1), w = random_values(n * k, dtype, 2);
    const Buffer dx(m, dtype, {t, k});
    m.kernels().linear_backward_input(Buffer(m, dtype, {t, n}, dy), Buffer(m, dtype, {n, k}, w), dx,
                                      *m.stream);
    const Gemm expected(t, k, n, matrix(dy, n), matrix(w, k));
    CHECK_AGREES("linear_backward_input dx", dx.read(), expected.values, expected.each(),
                 tolerance(dtype, n));
  }
}

BOOST_DATA_TEST_CASE(weight_gradient_adds_dy_transposed_times_x,
                     data::make(machines()) * data::make(reals()) * data::make(reals()), machine, dtype,
                     gradient) {
  Machine& m = machine.get();
  for (const auto& [t, n, k] : sizes) {
    const auto dy = random_values(t * n, dtype, 1), x = random_values(t * k, dtype, 2);
    const auto before = random_values(n * k, gradient, 3);
    const Buffer dw(m, gradient, {n, k}, before);
    m.kernels().linear_backward_weight(Buffer(m, dtype, {t, n}, dy), Buffer(m, dtype, {t, k}, x), dw,
                                       *m.stream);
    Gemm expected(n, k, t, transposed(dy, n), matrix(x, k));
    for (std::size_t i = 0; i < before.size(); ++i) {
      expected.values[i] += before[i];
      expected.terms[i] = std::hypot(expected.terms[i], before[i]);
    }
    Rows each = expected.each();
    // Where cuBLASLt splits a long sum over blocks, it rounds the sum once more before it adds it to bf16.
    if (m.device->kind() != "cpu" && gradient == DType::bf16) each.spread = 2;
    CHECK_AGREES("linear_backward_weight dw", dw.read(), expected.values, each, tolerance(gradient, t));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
