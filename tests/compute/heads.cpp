// Biases, and norms of query and key heads, against their definitions in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr float epsilon = 1e-5f;

const std::vector<std::array<std::int64_t, 2>> sizes = {{0, 8},    {1, 1},     {1, 100}, {5, 33},
                                                        {67, 130}, {300, 264}, {3, 257}, {1100, 1536}};

const std::vector<AttentionShape> shapes = {{1, 1, 2},  {3, 1, 20},  {4, 2, 16},   {2, 2, 34},
                                            {2, 2, 64}, {8, 2, 128}, {40, 8, 128}, {2, 1, 256}};

/// What the norms of all query and key heads are and give back, in double.
struct Truth {
  AttentionShape shape;
  std::int64_t rows, heads;
  std::vector<float> qkv, wq, wk;
  std::vector<double> raw, rstd, y;

  Truth(const AttentionShape& s, std::int64_t t, DType dtype, float deviation)
      : shape(s),
        rows(t),
        heads(s.query_heads + s.key_value_heads),
        qkv(random_values(t * s.fused_columns(), dtype, 71, deviation)),
        wq(random_values(s.head_dim, dtype, 72, 0.3f, 1)),
        wk(random_values(s.head_dim, dtype, 73, 0.3f, 1)),
        y(qkv.begin(), qkv.end()) {
    for (std::int64_t i = 0; i < rows * heads; ++i) {
      double squares = 0;
      for (std::int64_t d = 0; d < shape.head_dim; ++d) squares += double{qkv[at(i, d)]} * qkv[at(i, d)];
      rstd.push_back(1 / std::sqrt(squares / static_cast<double>(shape.head_dim) + epsilon));
      for (std::int64_t d = 0; d < shape.head_dim; ++d) {
        raw.push_back(qkv[at(i, d)]);
        y[at(i, d)] = qkv[at(i, d)] * rstd.back() * weight(i)[static_cast<std::size_t>(d)];
      }
    }
  }
  bool query(std::int64_t i) const { return i % heads < shape.query_heads; }
  const std::vector<float>& weight(std::int64_t i) const { return query(i) ? wq : wk; }
  /// Element d of head i, counted through the rows, in a fused tensor.
  std::size_t at(std::int64_t i, std::int64_t d) const {
    return static_cast<std::size_t>(i / heads * shape.fused_columns() + i % heads * shape.head_dim + d);
  }
  Rows heads_as_rows() const { return {{rows, heads, shape.head_dim}}; }
};

/// The gradients, and of each element the size of the terms that it is a sum of.
struct Gradient {
  std::vector<double> dqkv, dqkv_terms;
  std::vector<double> dwq, dwk, dwq_terms, dwk_terms;

  Gradient(const Truth& truth, const std::vector<float>& dy, const std::vector<float>& before)
      : dqkv(dy.begin(), dy.end()),
        dqkv_terms(dqkv),
        dwq(before.begin(), before.end()),
        dwk(dwq),
        dwq_terms(dwq),
        dwk_terms(dwq) {
    const auto size = truth.shape.head_dim;
    for (std::int64_t i = 0; i < truth.rows * truth.heads; ++i) {
      const double rstd = truth.rstd[static_cast<std::size_t>(i)];
      auto &dw = truth.query(i) ? dwq : dwk, &dw_terms = truth.query(i) ? dwq_terms : dwk_terms;
      double along = 0, squares = 0;
      for (std::int64_t d = 0; d < size; ++d) {
        const double gradient = dy[truth.at(i, d)], x = truth.qkv[truth.at(i, d)];
        const auto column = static_cast<std::size_t>(d);
        const double term = gradient * truth.weight(i)[column] * x;
        along += term;
        squares += term * term;
        dw[column] += gradient * x * rstd;
        dw_terms[column] = std::hypot(dw_terms[column], gradient * x * rstd);
      }
      for (std::int64_t d = 0; d < size; ++d) {
        const double direct = dy[truth.at(i, d)] * truth.weight(i)[static_cast<std::size_t>(d)] * rstd,
                     projected = truth.qkv[truth.at(i, d)] * rstd * rstd * rstd / static_cast<double>(size);
        dqkv[truth.at(i, d)] = direct - projected * along;
        dqkv_terms[truth.at(i, d)] = std::hypot(direct, projected * along, projected * std::sqrt(squares));
      }
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(heads)

BOOST_DATA_TEST_CASE(a_bias_is_added_to_every_row, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& [t, n] : sizes) {
    const auto y = random_values(t * n, dtype, 61), b = random_values(n, dtype, 62);
    const Buffer out(m, dtype, {t, n}, y);
    m.kernels().add_bias(out, Buffer(m, dtype, {n}, b), *m.stream);
    std::vector<float> expected = y;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += b[i % static_cast<std::size_t>(n)];
    BOOST_CHECK(out.read() == rounded(expected, dtype));
  }
}

BOOST_DATA_TEST_CASE(the_gradient_of_a_bias_is_the_sum_of_rows,
                     data::make(machines()) * data::make(reals()) * data::make(reals()), machine, dtype,
                     gradient) {
  Machine& m = machine.get();
  for (const auto& [t, n] : sizes) {
    const auto dy = random_values(t * n, dtype, 63), before = random_values(n, gradient, 64);
    std::vector<double> expected(before.begin(), before.end()), terms = expected;
    for (std::size_t i = 0; i < dy.size(); ++i) {
      const std::size_t column = i % static_cast<std::size_t>(n);
      expected[column] += dy[i];
      terms[column] = std::hypot(terms[column], dy[i]);
    }
    const Buffer db(m, gradient, {n}, before);
    m.kernels().bias_backward(Buffer(m, dtype, {t, n}, dy), db, *m.stream);
    CHECK_AGREES("bias_backward db", db.read(), expected, Rows{{n}, joined(expected, terms)},
                 tolerance(gradient, t));
  }
}

BOOST_DATA_TEST_CASE(forward_is_the_definition, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  for (const auto& shape : shapes)
    for (const std::int64_t t : {0, 1, 67})
      // Epsilon decides where squares are as small as it is.
      for (const float deviation : {3.0f, 0.003f}) {
        const Truth truth(shape, t, dtype, deviation);
        const Buffer qkv(m, dtype, {t, shape.fused_columns()}, truth.qkv),
            rstd(m, DType::fp32, {t, truth.heads});
        const Buffer raw(m, dtype, {t, truth.heads * shape.head_dim});
        m.kernels().head_norm_forward(qkv, Buffer(m, dtype, {shape.head_dim}, truth.wq),
                                      Buffer(m, dtype, {shape.head_dim}, truth.wk), epsilon, shape, raw, rstd,
                                      *m.stream);
        // Two roundings to bf16: of the normalized value and of the product. Values stay as they were.
        CHECK_AGREES("head_norm_forward qkv", qkv.read(), truth.y,
                     Rows{{t, truth.heads + shape.key_value_heads}}, 2 * tolerance(dtype, shape.head_dim));
        CHECK_AGREES("head_norm_forward rstd", rstd.read(), truth.rstd, Rows{{t, truth.heads}},
                     tolerance(DType::fp32, shape.head_dim));
        const auto kept = raw.read();
        BOOST_CHECK(std::vector<double>(kept.begin(), kept.end()) == truth.raw);
      }
}

BOOST_DATA_TEST_CASE(values_are_left_alone, data::make(machines()), machine) {
  Machine& m = machine.get();
  const AttentionShape shape{4, 2, 16};
  const Truth truth(shape, 5, DType::bf16, 3);
  const Buffer qkv(m, DType::bf16, {5, shape.fused_columns()}, truth.qkv), rstd(m, DType::fp32, {5, 6});
  const Buffer w(m, DType::bf16, {16}, truth.wq), raw(m, DType::bf16, {5, 96});
  m.kernels().head_norm_forward(qkv, w, w, epsilon, shape, raw, rstd, *m.stream);
  const auto after = qkv.read();
  for (std::size_t row = 0; row < 5; ++row)
    for (std::size_t column = 96; column < 128; ++column)
      BOOST_TEST(after[row * 128 + column] == truth.qkv[row * 128 + column]);
}

BOOST_DATA_TEST_CASE(backward_is_the_derivative,
                     data::make(machines()) * data::make(reals()) * data::make(reals()), machine, dtype,
                     gradient) {
  Machine& m = machine.get();
  for (const auto& shape : shapes)
    for (const std::int64_t t : {0, 1, 67}) {
      const Truth truth(shape, t, dtype, 3);
      const auto dy = random_values(t * shape.fused_columns(), dtype, 74);
      const auto before = random_values(shape.head_dim, gradient, 75);
      const Gradient expected(truth, dy, before);
      const Buffer dqkv(m, dtype, {t, shape.fused_columns()}, dy);
      const Buffer dwq(m, gradient, {shape.head_dim}, before), dwk(m, gradient, {shape.head_dim}, before);
      const Buffer raw(m, dtype, {t, truth.heads * shape.head_dim},
                       std::vector<float>(truth.raw.begin(), truth.raw.end()));
      const Buffer rstd(m, DType::fp32, {t, truth.heads},
                        std::vector<float>(truth.rstd.begin(), truth.rstd.end()));
      m.kernels().head_norm_backward(dqkv, raw, Buffer(m, dtype, {shape.head_dim}, truth.wq),
                                     Buffer(m, dtype, {shape.head_dim}, truth.wk), rstd, shape, dwq, dwk,
                                     *m.stream);
      CHECK_AGREES("head_norm_backward dqkv", dqkv.read(), expected.dqkv,
                   Rows{{t, shape.fused_columns()}, joined(expected.dqkv, expected.dqkv_terms)},
                   tolerance(dtype, shape.head_dim));
      // Of the weights as in norm.cpp.
      for (const auto& [name, actual, sums, terms] :
           {std::tuple{"head_norm_backward dwq", &dwq, &expected.dwq, &expected.dwq_terms},
            std::tuple{"head_norm_backward dwk", &dwk, &expected.dwk, &expected.dwk_terms}})
        CHECK_AGREES(name, actual->read(), *sums, Rows{{shape.head_dim}, joined(*sums, *terms), 2},
                     tolerance(gradient, t * truth.heads) + tolerance(dtype, 1));
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
