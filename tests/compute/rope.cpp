// Rotary embedding against complex multiplication.
#include <complex>

#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

/// (P, D): cosines, then sines, of position / 10000^(2 i / D).
std::vector<float> angles(std::int64_t positions, std::int64_t size) {
  std::vector<float> table;
  for (std::int64_t p = 0; p < positions; ++p) {
    for (const bool sine : {false, true}) {
      for (std::int64_t i = 0; i < size / 2; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(size));
        table.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
      }
    }
  }
  return table;
}

/// Query and key heads times e^(i angle), value heads as they are.
std::vector<double> rotated(const std::vector<float>& qkv, const std::vector<std::int32_t>& positions,
                            const std::vector<float>& table, const AttentionShape& shape) {
  std::vector<double> out(qkv.begin(), qkv.end());
  const auto columns = static_cast<std::size_t>(shape.fused_columns()),
             size = static_cast<std::size_t>(shape.head_dim);
  for (std::size_t t = 0; t < positions.size(); ++t) {
    for (std::size_t h = 0; h < static_cast<std::size_t>(shape.query_heads + shape.key_value_heads); ++h) {
      for (std::size_t i = 0; i < size / 2; ++i) {
        const float* angle = &table[static_cast<std::size_t>(positions[t]) * size + i];
        const std::size_t at = t * columns + h * size + i;
        const auto turned = std::complex<double>(qkv[at], qkv[at + size / 2]) *
                            std::complex<double>(angle[0], angle[size / 2]);
        out[at] = turned.real();
        out[at + size / 2] = turned.imag();
      }
    }
  }
  return out;
}

/// Errors of an element are as large as the pair that it turns with.
Rows pairs_of(const std::vector<float>& qkv, const AttentionShape& shape) {
  const auto size = static_cast<std::size_t>(shape.head_dim);
  std::vector<double> scales;
  for (std::size_t i = 0; i < qkv.size(); ++i) {
    const std::size_t d = i % size, other = d < size / 2 ? i + size / 2 : i - size / 2;
    scales.push_back(std::hypot(qkv[i], qkv[other]));
  }
  return {{static_cast<std::int64_t>(qkv.size()) / shape.fused_columns(), shape.fused_columns()}, scales};
}

const std::vector<AttentionShape> shapes = {{1, 1, 2},
                                            {3, 1, 20},
                                            {4, 2, 16},
                                            {2, 2, 64},
                                            {32, 8, 64},
                                            {32, 8, 128},
                                            // Beyond the 320 pairs or packets of pairs of a GPU's block.
                                            {40, 8, 128},
                                            {40, 8, 20}};

}  // namespace

BOOST_AUTO_TEST_SUITE(rope)

BOOST_DATA_TEST_CASE(forward_rotates_queries_and_keys, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& shape : shapes) {
    for (const auto& lengths : {std::vector<std::int64_t>{}, {1}, {50, 1, 1, 29}}) {
      const Documents documents(m, lengths);
      const auto t = static_cast<std::int64_t>(documents.starts.size());
      const auto table = angles(50, shape.head_dim);
      const auto values = random_values(t * shape.fused_columns(), dtype, 31);
      const Buffer qkv(m, dtype, {t, shape.fused_columns()}, values);
      m.kernels().rope_forward(qkv, documents.rows(), Buffer(m, DType::fp32, {50, shape.head_dim}, table),
                               shape, *m.stream);
      CHECK_AGREES("rope_forward qkv", qkv.read(), rotated(values, documents.positions, table, shape),
                   pairs_of(values, shape), tolerance(dtype, 2));
    }
  }
}

BOOST_DATA_TEST_CASE(backward_turns_back, data::make(machines()) * data::make(reals()), machine, dtype) {
  Machine& m = machine.get();
  for (const auto& shape : shapes) {
    const Documents documents(m, {17, 3});
    const Buffer table(m, DType::fp32, {17, shape.head_dim}, angles(17, shape.head_dim));
    const auto values = random_values(20 * shape.fused_columns(), dtype, 32);
    const Buffer qkv(m, dtype, {20, shape.fused_columns()}, values);
    m.kernels().rope_forward(qkv, documents.rows(), table, shape, *m.stream);
    BOOST_CHECK(qkv.read() != values);
    m.kernels().rope_backward(qkv, documents.rows(), table, shape, *m.stream);
    // Rounded after each of the two turns.
    CHECK_AGREES("rope_backward dqkv", qkv.read(), values, pairs_of(values, shape), 2 * tolerance(dtype, 2));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
