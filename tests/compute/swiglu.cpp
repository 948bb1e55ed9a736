// SwiGLU against its definition in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

const std::vector<std::array<std::int64_t, 2>> sizes = {
    {0, 8},
    {1, 1},
    {3, 17},
    {65, 100},
    {300, 48},
    {3, 8192},
    {5, 14336},
    // One less, as much as, and one more than a block of a GPU takes of a row: 4096 in packets, 512 without.
    {2, 4088},
    {2, 4096},
    {2, 4104},
    {2, 511},
    {2, 513},
    {2, 1023},
    {2, 1025}};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(swiglu)

BOOST_DATA_TEST_CASE(both_directions_are_the_definition,
                     data::make(machines()) * data::make(reals()) * data::make({false, true}), machine, dtype,
                     alias) {
  Machine& m = machine.get();
  for (const auto& [rows, width] : sizes) {
    const auto in = random_values(rows * 2 * width, dtype, 51, 4),
               dh = random_values(rows * width, dtype, 52);
    const auto f = static_cast<std::size_t>(width);
    std::vector<double> expected(dh.size()), gradient(in.size()), sizes_of_h(dh.size()), terms(in.size());
    for (std::size_t i = 0; i < dh.size(); ++i) {
      const std::size_t gate = i / f * 2 * f + i % f;
      const double g = in[gate], u = in[gate + f], s = sigmoid(g);
      expected[i] = g * s * u;
      gradient[gate] = dh[i] * u * (s + g * s * (1 - s));
      gradient[gate + f] = dh[i] * g * s;
      // An exponential is off by as much as its exponent is large; the terms of dgate may cancel.
      const double exponent = 1 + std::abs(g);
      sizes_of_h[i] = std::abs(expected[i]) * exponent;
      terms[gate] = std::abs(dh[i] * u * s) * (1 + std::abs(g) * (1 - s)) * exponent;
      terms[gate + f] = std::abs(gradient[gate + f]) * exponent;
    }
    const Buffer gate_up(m, dtype, {rows, 2 * width}, in), h(m, dtype, {rows, width}),
        fresh(m, dtype, {rows, 2 * width});
    m.kernels().swiglu_forward(gate_up, h, *m.stream);
    CHECK_AGREES("swiglu_forward h", h.read(), expected, Rows{{rows, width}, sizes_of_h},
                 tolerance(dtype, 4));
    const Buffer& out = alias ? gate_up : fresh;
    const Buffer again(m, dtype, {rows, width});
    m.kernels().swiglu_backward(gate_up, Buffer(m, dtype, {rows, width}, dh), out, again, *m.stream);
    CHECK_AGREES("swiglu_backward dgate_up", out.read(), gradient, Rows{{rows, 2 * width}, terms},
                 tolerance(dtype, 4));
    BOOST_CHECK(again.read() == h.read());
  }
}

BOOST_DATA_TEST_CASE(the_exponential_holds_from_end_to_end, data::make(machines()), machine) {
  Machine& m = machine.get();
  // Gates over the whole range where e^-g is finite in fp32 and beyond.
  std::vector<float> gates;
  for (float g = -110; g <= 110; g += 0.0371f) gates.push_back(g);
  const auto n = static_cast<std::int64_t>(gates.size());
  auto in = gates;
  in.resize(gates.size() * 2, 1.0f);
  const Buffer h(m, DType::fp32, {1, n});
  m.kernels().swiglu_forward(Buffer(m, DType::fp32, {1, 2 * n}, in), h, *m.stream);
  const auto actual = h.read();
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const double truth = gates[i] * sigmoid(gates[i]);
    // Rounding of e^-g, the sum and the quotient, half a unit of 2^-23 each, two for the exponential itself;
    // below -87 e^-g passes 2^126 and results may lose bits to underflow or become 0.
    BOOST_CHECK_SMALL(actual[i] - truth, 4 * 0x1p-23 * std::abs(truth) + (gates[i] < -87 ? 1e-35 : 0));
  }
}

BOOST_DATA_TEST_CASE(infinite_and_nan_gates, data::make(machines()), machine) {
  Machine& m = machine.get();
  const float infinity = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  // -infinity over infinity is NaN in the definition too.
  const Buffer h(m, DType::fp32, {1, 4});
  m.kernels().swiglu_forward(Buffer(m, DType::fp32, {1, 8}, {infinity, nan, 200, -200, 1, 1, 1, 1}), h,
                             *m.stream);
  const auto result = h.read();
  BOOST_CHECK(result[0] == infinity && std::isnan(result[1]) && result[2] == 200 &&
              std::abs(result[3]) < 1e-35f);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
