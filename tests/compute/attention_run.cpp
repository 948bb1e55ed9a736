#include "compute/attention_run.hpp"

namespace llama3d::test {

AttentionInputs random_inputs(const AttentionShape& shape, std::int64_t rows, DType dtype, float deviation) {
  return {random_values(rows * shape.fused_columns(), dtype, 41, deviation),
          random_values(rows * shape.output_columns(), dtype, 42)};
}

AttentionOutputs run_attention(Machine& m, DType dtype, const AttentionShape& shape,
                               const Documents& documents, const AttentionInputs& inputs) {
  const auto t = static_cast<std::int64_t>(documents.starts.size());
  const Shape fused{t, shape.fused_columns()}, output{t, shape.output_columns()};
  const Buffer qkv(m, dtype, fused, inputs.qkv), dout(m, dtype, output, inputs.dout), out(m, dtype, output),
      lse(m, DType::fp32, {shape.query_heads, t}), dqkv(m, dtype, fused);
  m.kernels().attention_forward(qkv, documents.rows(), shape, out, lse, *m.stream);
  m.kernels().attention_backward(qkv, documents.rows(), shape, out, lse, dout, dqkv, *m.stream);
  FusedParts gradients(dqkv.read(), shape);
  return {out.read(), lse.read(), std::move(gradients.q), std::move(gradients.k), std::move(gradients.v)};
}

bool dq_has_an_order(const Machine& m, DType dtype, std::int64_t head_dim) {
  return m.device->kind() == "cpu" || dtype == DType::fp32 || (head_dim != 64 && head_dim != 128);
}

}  // namespace llama3d::test
