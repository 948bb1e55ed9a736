// Every machine against the oracle, HostKernels on one thread, at sizes too large for sums in plain double
// loops: how work is split among threads or blocks shows here. And: the same call twice gives the same bits.
#include <algorithm>

#include "compute/attention_truth.hpp"
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

constexpr std::int64_t rows = 700, hidden = 96, width = 320;
const std::vector<std::int64_t> lengths = {300, 1, 1, 70, 200, 128};

struct Result {
  std::string what;
  std::vector<std::int64_t> extents;  ///< of its rows
  std::vector<float> values;
  bool operator==(const Result&) const = default;
};

std::vector<float> values_of_dout(DType dtype, const AttentionShape& shape) {
  return random_values(rows * shape.output_columns(), dtype, 4, 0.5f);
}

/// What one layer's operations leave behind, forward and backward, on inputs that do not depend on the
/// machine.
std::vector<Result> run_layer(Machine& m, DType dtype, const AttentionShape& shape) {
  Kernels& k = m.kernels();
  Stream& s = *m.stream;
  const Documents documents(m, lengths);
  const auto draw = [&](Shape extents, unsigned seed) {
    return Buffer(m, dtype, extents, random_values(extents.elements(), dtype, seed, 0.5f));
  };
  const Buffer x = draw({rows, hidden}, 1), w = draw({hidden}, 2),
               w_qkv = draw({shape.fused_columns(), hidden}, 3);
  const Buffer y(m, dtype, {rows, hidden}), rstd(m, DType::fp32, {rows});
  k.rms_norm_forward(x, w, 1e-5f, y, rstd, s);
  const Buffer qkv(m, dtype, {rows, shape.fused_columns()});
  k.linear_forward(y, w_qkv, qkv, s);
  const Buffer out(m, dtype, {rows, shape.output_columns()}), lse(m, DType::fp32, {shape.query_heads, rows});
  k.attention_forward(qkv, documents.rows(), shape, out, lse, s);
  const Buffer dout(m, dtype, {rows, shape.output_columns()}, values_of_dout(dtype, shape)),
      dqkv(m, dtype, {rows, shape.fused_columns()});
  k.attention_backward(qkv, documents.rows(), shape, out, lse, dout, dqkv, s);
  const Buffer dy(m, dtype, {rows, hidden}), dw_qkv(m, DType::fp32, {shape.fused_columns(), hidden});
  k.fill_zero(dw_qkv, s);
  k.linear_backward_weight(dqkv, y, dw_qkv, s);
  k.linear_backward_input(dqkv, w_qkv, dy, s);
  const Buffer dx(m, dtype, {rows, hidden}), dw(m, DType::fp32, {hidden}, std::vector<float>(hidden, 0.0f));
  k.rms_norm_backward(dy, x, w, rstd, {}, dx, dw, s);
  const Buffer gate_up = draw({rows, 2 * width}, 5), h(m, dtype, {rows, width}),
               dgate_up(m, dtype, {rows, 2 * width});
  k.swiglu_forward(gate_up, h, s);
  k.swiglu_backward(gate_up, h, dgate_up, {}, s);
  return {{"norm y", {rows}, y.read()},
          {"norm rstd", {rows}, rstd.read()},
          {"qkv", {rows}, qkv.read()},
          {"attention out", {rows, shape.query_heads}, out.read()},
          {"attention lse", {shape.query_heads, rows}, lse.read()},
          {"attention dqkv", {rows}, dqkv.read()},
          {"dw_qkv", {shape.fused_columns()}, dw_qkv.read()},
          {"dy", {rows}, dy.read()},
          {"dx", {rows}, dx.read()},
          {"dw", {1}, dw.read()},
          {"swiglu h", {rows}, h.read()},
          {"swiglu dgate_up", {rows}, dgate_up.read()}};
}

double norm_of(const std::vector<float>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

/// Errors of each row of `of`, where they are not as large as the row: scores here are of the size at which P
/// comes near one, and dQ and dK are differences of equal terms. What they are off by goes on into dy and dx.
std::vector<double> scales_of(const Result& of, const AttentionTruth& truth, const Result& dqkv) {
  std::vector<double> scales;
  if (of.what == "attention lse")
    for (const double value : of.values) scales.push_back(1 + std::abs(value));
  if (of.what != "attention dqkv" && of.what != "dy" && of.what != "dx") return scales;
  const double share = norm_of(of.values) / norm_of(dqkv.values);
  const std::size_t columns = of.values.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (const auto* terms : {&truth.dq_scale, &truth.dk_scale, &truth.dv_scale})
      for (std::size_t head = 0, heads = terms->size() / rows; head < heads; ++head)
        squares += share * share * (*terms)[row * heads + head] * (*terms)[row * heads + head];
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
      squares += double{of.values[i]} * of.values[i];
    scales.push_back(std::sqrt(squares));
  }
  return scales;
}

const Result& find(const std::vector<Result>& results, const std::string& what) {
  return *std::find_if(results.begin(), results.end(), [&](const Result& r) { return r.what == what; });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(equivalence)

BOOST_DATA_TEST_CASE(a_layer_is_equivalent_to_the_oracle, data::make(machines()) * data::make(reals()),
                     machine, dtype) {
  for (const AttentionShape& shape : {AttentionShape{6, 2, 16}, {4, 2, 64}, {2, 1, 128}}) {
    const auto actual = run_layer(machine.get(), dtype, shape),
               expected = run_layer(oracle().get(), dtype, shape);
    const AttentionTruth truth(find(expected, "qkv").values, values_of_dout(dtype, shape), shape, lengths);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const Rows each{expected[i].extents, scales_of(expected[i], truth, find(expected, "attention dqkv"))};
      // Each step starts from the step before it: a dozen roundings in a row, the longest sum over all rows.
      BOOST_TEST_CONTEXT("heads of " << shape.head_dim) {
        CHECK_AGREES(expected[i].what, actual[i].values, expected[i].values, each,
                     std::min(4 * tolerance(dtype, rows), most(dtype)));
      }
    }
  }
}

BOOST_DATA_TEST_CASE(the_same_call_gives_the_same_bits, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  const AttentionShape shape{6, 2, 16};
  const auto first = run_layer(machine.get(), dtype, shape);
  for (int repeat = 0; repeat < 3; ++repeat) BOOST_CHECK(run_layer(machine.get(), dtype, shape) == first);
}

namespace {

/// What operations leave that add up many rows, entries or elements, at sizes that take several blocks.
std::vector<std::vector<double>> run_sums(Machine& m, DType dtype) {
  Kernels& k = m.kernels();
  Stream& s = *m.stream;
  const auto draw = [&](Shape extents, unsigned seed) {
    return Buffer(m, dtype, extents, random_values(extents.elements(), dtype, seed));
  };
  std::vector<std::int32_t> few(1500), positions(2, 999);
  for (std::size_t i = 0; i < few.size(); ++i) few[i] = static_cast<std::int32_t>(i * i % 7);
  const Buffer ids(m, {1500}, few), dtable(m, DType::fp32, {7, 264}, std::vector<float>(7 * 264, 0.0f));
  k.embedding_backward(ids, draw({1500, 264}, 6), 0, dtable, s);

  const Buffer logits = draw({1500, 264}, 7), statistics(m, DType::fp32, {1, 1500, 3}),
               losses(m, DType::fp32, {1500}), totals(m, {2}, std::vector<double>{0, 0});
  k.cross_entropy_statistics(logits, ids, 0, 264, statistics, s);
  k.cross_entropy_finish(logits, ids, 0, 264, statistics, true, losses, totals, s);

  const Buffer norm(m, {1}, std::vector<double>{0});
  k.squared_norm(draw({300000}, 8), norm, s);

  const Buffer y(m, dtype, {rows, hidden}),
      dw(m, DType::fp32, {width, hidden}, std::vector<float>(width * hidden, 0.0f));
  k.linear_forward(draw({rows, width}, 9), draw({hidden, width}, 10), y, s);
  k.linear_backward_weight(draw({rows, width}, 9), y, dw, s);

  const AttentionShape shape{8, 2, 128};
  const Buffer out(m, dtype, {2, shape.output_columns()}), slot(m, {2}, std::vector<std::int32_t>{1, 0}),
      position(m, {2}, positions);
  k.attention_cached(draw({2, shape.fused_columns()}, 11), {slot, position}, shape, draw({2, 1000, 512}, 12),
                     out, s);
  return {dtable.read_doubles(), logits.read_doubles(), losses.read_doubles(), totals.read_doubles(),
          norm.read_doubles(),   y.read_doubles(),      dw.read_doubles(),     out.read_doubles()};
}

}  // namespace

BOOST_DATA_TEST_CASE(sums_have_one_order, data::make(machines()) * data::make(reals()), machine, dtype) {
  const auto first = run_sums(machine.get(), dtype);
  for (const auto& values : first)
    BOOST_CHECK(std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }));
  for (int repeat = 0; repeat < 2; ++repeat) BOOST_CHECK(run_sums(machine.get(), dtype) == first);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
