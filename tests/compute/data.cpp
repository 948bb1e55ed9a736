// fill_zero, copy, add, fill_normal.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

BOOST_AUTO_TEST_SUITE(data_movement)

BOOST_DATA_TEST_CASE(fill_zero_clears_everything,
                     data::make(machines()) * data::make({0, 1, 37, 100003, 4096, 4104}), machine, n) {
  Machine& m = machine.get();
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64}) {
    const Buffer out(m, dtype, {n});
    m.kernels().fill_zero(out, *m.stream);
    BOOST_CHECK(out.read() == std::vector<float>(static_cast<std::size_t>(n), 0.0f));
  }
}

BOOST_DATA_TEST_CASE(copy_converts, data::make(machines()) * data::make(reals()) * data::make(reals()),
                     machine, from, to) {
  Machine& m = machine.get();
  // A block of a GPU takes 4096 in packets, 512 without.
  for (const std::int64_t n : {0, 1, 999, 70001, 511, 513, 4088, 4096, 4104, 70000}) {
    const auto values = random_values(n, from, 3);
    const Buffer in(m, from, {n}, values), out(m, to, {1, n});
    m.kernels().copy(in, out, *m.stream);
    BOOST_CHECK(out.read() == rounded(values, to));
  }
}

BOOST_DATA_TEST_CASE(copy_keeps_infinity_and_nan, data::make(machines()), machine) {
  Machine& m = machine.get();
  const float infinity = std::numeric_limits<float>::infinity();
  const Buffer in(m, DType::fp32, {3}, {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()});
  const Buffer out(m, DType::bf16, {3});
  m.kernels().copy(in, out, *m.stream);
  BOOST_CHECK(out.read()[0] == infinity && out.read()[1] == -infinity && std::isnan(out.read()[2]));
}

BOOST_DATA_TEST_CASE(add_rounds_once_and_may_alias, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const std::int64_t n : {0, 1, 33, 50001, 511, 513, 4088, 4096, 4104, 50000}) {
    const auto a = random_values(n, dtype, 4), b = random_values(n, dtype, 5);
    std::vector<float> expected(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) expected[i] = a[i] + b[i];
    const Buffer x(m, dtype, {n}, a), y(m, dtype, {n}, b), out(m, dtype, {n});
    m.kernels().add(x, y, out, *m.stream);
    BOOST_CHECK(out.read() == rounded(expected, dtype));
    m.kernels().add(x, y, x, *m.stream);
    BOOST_CHECK(x.read() == out.read());
  }
}

BOOST_DATA_TEST_CASE(normal_blocks_are_pieces_of_one_matrix, data::make(machines()) * data::make(reals()),
                     machine, dtype) {
  Machine& m = machine.get();
  constexpr std::int64_t rows = 13, columns = 29;
  const Buffer whole(m, dtype, {rows, columns});
  m.kernels().fill_normal(whole, 77, 0, 0, columns, 0.5f, *m.stream);
  const auto all = whole.read();
  for (const auto [row, column, height, width] :
       {std::array{0, 0, 13, 5}, std::array{4, 7, 6, 11}, std::array{12, 28, 1, 1}, std::array{3, 3, 0, 4}}) {
    const Buffer block(m, dtype, {height, width});
    m.kernels().fill_normal(block, 77, row, column, columns, 0.5f, *m.stream);
    const auto piece = block.read();
    for (int i = 0; i < height; ++i) {
      for (int j = 0; j < width; ++j) {
        BOOST_CHECK_EQUAL(piece[static_cast<std::size_t>(i * width + j)],
                          all[static_cast<std::size_t>((row + i) * columns + column + j)]);
      }
    }
  }
  const Buffer other(m, dtype, {rows, columns});
  m.kernels().fill_normal(other, 78, 0, 0, columns, 0.5f, *m.stream);
  BOOST_CHECK(other.read() != all);
}

BOOST_DATA_TEST_CASE(normal_blocks_may_have_more_rows_than_a_grid, data::make(machines()), machine) {
  Machine& m = machine.get();
  constexpr std::int64_t rows = 65535 + 3, columns = 3;
  const Buffer whole(m, DType::fp32, {rows, columns}), end(m, DType::fp32, {5, columns});
  m.kernels().fill_normal(whole, 77, 0, 0, columns, 0.5f, *m.stream);
  m.kernels().fill_normal(end, 77, rows - 5, 0, columns, 0.5f, *m.stream);
  const auto all = whole.read();
  BOOST_CHECK(end.read() == std::vector<float>(all.end() - 5 * columns, all.end()));
}

BOOST_DATA_TEST_CASE(normal_deviates_have_the_moments_of_a_normal, data::make(machines()), machine) {
  Machine& m = machine.get();
  constexpr double n = 400.0 * 500;
  const Buffer out(m, DType::fp32, {400, 500});
  m.kernels().fill_normal(out, 5, 0, 0, 500, 2.0f, *m.stream);
  double mean = 0, variance = 0, fourth = 0, next = 0, last = 0;
  for (const double value : out.read()) {
    const double z = value / 2;
    mean += z / n;
    variance += z * z / n;
    fourth += z * z * z * z / n;
    next += z * last / n;
    last = z;
  }
  // Five standard deviations of each estimate from n samples: 1, sqrt(2), sqrt(96) and 1 over sqrt(n).
  BOOST_CHECK_SMALL(mean, 5 / std::sqrt(n));
  BOOST_CHECK_SMALL(variance - 1, 5 * std::sqrt(2 / n));
  BOOST_CHECK_SMALL(fourth - 3, 5 * std::sqrt(96 / n));
  BOOST_CHECK_SMALL(next, 5 / std::sqrt(n));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
