#pragma once
// One forward and one backward call of attention on a machine.

#include "compute/attention_truth.hpp"
#include "compute/machines.hpp"

namespace llama3d::test {

/// (T, fused columns) and (T, Hq D).
struct AttentionInputs {
  std::vector<float> qkv, dout;
};
/// Normal deviates; those of q, k and v of `deviation`.
AttentionInputs random_inputs(const AttentionShape& shape, std::int64_t rows, DType dtype,
                              float deviation = 1);

/// (T, Hq, D), (Hq, T), (T, Hq, D), (T, Hkv, D), (T, Hkv, D).
struct AttentionOutputs {
  std::vector<float> out, lse, dq, dk, dv;
};
AttentionOutputs run_attention(Machine& m, DType dtype, const AttentionShape& shape,
                               const Documents& documents, const AttentionInputs& inputs);

/// Whether dQ is summed in one order: all but the kernels on tensor cores promise it, which add the parts of
/// tiles of `unordered_keys` keys as they come.
bool dq_has_an_order(const Machine& m, DType dtype, std::int64_t head_dim);
inline constexpr std::int64_t unordered_keys = 128;

}  // namespace llama3d::test
