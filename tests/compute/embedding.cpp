// The embedding of a vocabulary shard against plain loops.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr std::int64_t first_id = 10, vocabulary = 7;

/// Ids inside the shard, repeated, and on both sides of it.
std::vector<std::int32_t> ids_of(std::int64_t n) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < n; ++t) ids.push_back(static_cast<std::int32_t>(8 + t * 5 % 11));
  return ids;
}

const std::vector<std::array<std::int64_t, 2>> sizes = {
    {0, 8},
    {1, 1},
    {5, 130},
    {200, 33},
    // As much as a block of a GPU takes of a row, and more: 256 or 2048 in packets, 32 without.
    {70, 256},
    {70, 264},
    {300, 32},
    {5, 2048},
    {5, 2056},
    {5, 513}};

}  // namespace

BOOST_AUTO_TEST_SUITE(embedding)

BOOST_DATA_TEST_CASE(forward_copies_rows_of_the_shard, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& [rows, columns] : sizes) {
    const auto c = static_cast<std::size_t>(columns);
    const auto ids = ids_of(rows);
    const auto table = random_values(vocabulary * columns, dtype, 61);
    const Buffer out(m, dtype, {rows, columns});
    m.kernels().embedding_forward(Buffer(m, {rows}, ids), Buffer(m, dtype, {vocabulary, columns}, table),
                                  first_id, out, *m.stream);
    std::vector<float> expected(static_cast<std::size_t>(rows) * c, 0.0f);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::int64_t row = ids[i / c] - first_id;
      if (row >= 0 && row < vocabulary) expected[i] = table[static_cast<std::size_t>(row) * c + i % c];
    }
    BOOST_CHECK(out.read() == expected);
  }
}

BOOST_DATA_TEST_CASE(backward_adds_rows_to_the_shard,
                     data::make(machines()) * data::make(reals()) * data::make(reals()), machine, dtype,
                     gradient) {
  Machine& m = machine.get();
  for (const auto& [rows, columns] : sizes) {
    const auto c = static_cast<std::size_t>(columns);
    const auto ids = ids_of(rows);
    const auto dout = random_values(rows * columns, dtype, 62),
               before = random_values(vocabulary * columns, gradient, 63);
    const Buffer dtable(m, gradient, {vocabulary, columns}, before);
    m.kernels().embedding_backward(Buffer(m, {rows}, ids), Buffer(m, dtype, {rows, columns}, dout), first_id,
                                   dtable, *m.stream);
    std::vector<double> expected(before.begin(), before.end()), squares(before.size());
    for (std::size_t i = 0; i < before.size(); ++i) squares[i] = double{before[i]} * before[i];
    for (std::size_t i = 0; i < dout.size(); ++i) {
      const std::int64_t row = ids[i / c] - first_id;
      if (row < 0 || row >= vocabulary) continue;
      expected[static_cast<std::size_t>(row) * c + i % c] += dout[i];
      squares[static_cast<std::size_t>(row) * c + i % c] += double{dout[i]} * dout[i];
    }
    for (double& square : squares) square = std::sqrt(square);
    // One rounding to the gradient's dtype however many rows share an id.
    CHECK_AGREES("embedding_backward dtable", dtable.read(), expected,
                 Rows{{vocabulary, columns}, joined(expected, squares)}, tolerance(gradient, rows));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
