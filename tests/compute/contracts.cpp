// Broken contracts are reported, not computed.
#include "base/error.hpp"
#include "compute/host/host_device.hpp"
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

BOOST_AUTO_TEST_SUITE(contracts)

BOOST_DATA_TEST_CASE(wrong_shapes_types_and_aliases, data::make(machines()), machine) {
  Machine& m = machine.get();
  Kernels& k = m.kernels();
  Stream& s = *m.stream;
  const Buffer x(m, DType::fp32, {4, 6}), w(m, DType::fp32, {5, 6}), y(m, DType::fp32, {4, 5});
  BOOST_CHECK_NO_THROW(k.linear_forward(x, w, y, s));
  BOOST_CHECK_THROW(k.linear_forward(x, w, Buffer(m, DType::fp32, {5, 4}), s), ContractViolation);
  BOOST_CHECK_THROW(k.linear_forward(x, Buffer(m, DType::bf16, {5, 6}), y, s), ContractViolation);
  BOOST_CHECK_THROW(k.linear_forward(x, Buffer(m, DType::fp32, {4, 6}), x.tensor().reshape({4, 6}), s),
                    ContractViolation);
  BOOST_CHECK_THROW(k.linear_forward(x, w, Tensor(), s), ContractViolation);
  const Buffer scale(m, DType::fp32, {1}), transposed(m, DType::fp32, {6, 5});
  BOOST_CHECK_THROW(k.linear_forward(x, {w, scale, GemmLayout::row_major}, y, s), ContractViolation);
  BOOST_CHECK_THROW(k.linear_forward(x, {transposed, {}, GemmLayout::transposed}, y, s), ContractViolation);
  // What Kernels lets through by mistake is not taken for bf16.
  BOOST_CHECK_THROW(k.fill_normal(Buffer(m, DType::int32, {2, 2}), 0, 0, 0, 2, 1, s), ContractViolation);
  BOOST_CHECK_THROW(k.squared_norm(x, Buffer(m, DType::fp32, {1}), s), ContractViolation);
  BOOST_CHECK_THROW(k.swiglu_forward(x, Buffer(m, DType::fp32, {4, 2}), s), ContractViolation);
  BOOST_CHECK_THROW(k.fill_normal(x, 0, 0, 3, 8, 1, s), ContractViolation);
  BOOST_CHECK_THROW(k.add_bias(x, Buffer(m, DType::fp32, {5}), s), ContractViolation);
  BOOST_CHECK_THROW(k.bias_backward(x, Buffer(m, DType::fp32, {4}), s), ContractViolation);
  const AttentionShape shape{1, 1, 2};
  const Buffer norm(m, DType::fp32, {2}), raw(m, DType::fp32, {4, 4}), rstd(m, DType::fp32, {4, 2});
  BOOST_CHECK_THROW(k.head_norm_forward(x, norm, norm, 1e-5f, shape, raw, Buffer(m, DType::fp32, {4}), s),
                    ContractViolation);
  BOOST_CHECK_THROW(k.head_norm_forward(x, norm, Buffer(m, DType::fp32, {3}), 1e-5f, shape, raw, rstd, s),
                    ContractViolation);
  BOOST_CHECK_THROW(k.head_norm_backward(x, raw, norm, norm, rstd, shape, norm, norm, s), ContractViolation);
}

// A back end that cannot look into its memory without waiting need not check this; the host does.
BOOST_AUTO_TEST_CASE(documents_that_do_not_fit_together) {
  Machine& m = oracle().get();
  const AttentionShape shape{1, 1, 16};
  const Buffer qkv(m, DType::fp32, {2, 48}), out(m, DType::fp32, {2, 16}), lse(m, DType::fp32, {1, 2});
  const Buffer position(m, {2}, std::vector<std::int32_t>{0, 9});
  const auto rows = [&](std::vector<std::int32_t> start, std::vector<std::int32_t> end) {
    const Buffer first(m, {2}, start), last(m, {2}, end);
    m.kernels().attention_forward(qkv, {first, last, position}, shape, out, lse, *m.stream);
  };
  BOOST_CHECK_NO_THROW(rows({0, 1}, {1, 2}));
  BOOST_CHECK_THROW(rows({0, 0}, {1, 2}), ContractViolation);
  BOOST_CHECK_THROW(rows({0, 0}, {3, 3}), ContractViolation);
  BOOST_CHECK_THROW(rows({1, 1}, {2, 2}), ContractViolation);
  const Buffer start(m, {2}, std::vector<std::int32_t>{0, 0}), end(m, {2}, std::vector<std::int32_t>{2, 2});
  const Buffer table(m, DType::fp32, {9, 16});
  BOOST_CHECK_THROW(m.kernels().rope_forward(qkv, {start, end, position}, table, shape, *m.stream),
                    ContractViolation);
}

BOOST_AUTO_TEST_CASE(a_missing_or_small_workspace_is_refused) {
  const auto cpu = make_host_device(1);
  Machine m(make_host_device(1));
  const Buffer x(m, DType::bf16, {4, 6}), w(m, DType::bf16, {5, 6}), y(m, DType::bf16, {4, 5});
  BOOST_CHECK_THROW(cpu->kernels().linear_forward(x, w, y, *m.stream), ContractViolation);
  const WorkspaceRequest request{.compute = DType::bf16,
                                 .tokens = 4,
                                 .hidden = 6,
                                 .largest_features = 6,
                                 .largest_weight = 30,
                                 .attention = {}};
  const auto floats = static_cast<std::int64_t>(cpu->kernels().workspace_bytes(request) / 4);
  const DeviceMemory memory = cpu->allocate(static_cast<std::size_t>(floats) * 4);
  cpu->kernels().set_workspace({memory.get(), DType::fp32, {floats}});
  BOOST_CHECK_NO_THROW(cpu->kernels().linear_forward(x, w, y, *m.stream));
  cpu->kernels().set_workspace({memory.get(), DType::fp32, {32}});
  BOOST_CHECK_THROW(cpu->kernels().linear_forward(x, w, y, *m.stream), ContractViolation);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
