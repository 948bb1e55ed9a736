#pragma once
// What every back end checks of an operation's operands before it starts: shapes, dtypes and aliasing, as
// compute/kernels.hpp states them. One function an operation; a broken contract is a ContractViolation. What
// lies in the tensors is not looked at.

#include <span>

#include "compute/kernels.hpp"

namespace llama3d::contracts {

void fill_zero(const Tensor& out);
void copy(const Tensor& in, const Tensor& out);
void add(const Tensor& a, const Tensor& b, const Tensor& out);
void fill_normal(const Tensor& out, std::int64_t first_row, std::int64_t first_column,
                 std::int64_t global_columns);
void linear_forward(const Tensor& x, const Tensor& w, const Tensor& y);
void linear_backward_input(const Tensor& dy, const Tensor& w, const Tensor& dx);
void linear_backward_weight(const Tensor& dy, const Tensor& x, const Tensor& dw);
void add_bias(const Tensor& y, const Tensor& b);
void bias_backward(const Tensor& dy, const Tensor& db);
void rms_norm_forward(const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& rstd);
void add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w, const Tensor& sum,
                          const Tensor& y, const Tensor& rstd);
void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                       const Tensor& dresidual, const Tensor& dx, const Tensor& dw);
void head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                       const Tensor& raw, const Tensor& rstd);
void head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                        const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq,
                        const Tensor& dwk);
/// Forward and backward.
void rope(const Tensor& qkv, const DocumentRows& documents, const Tensor& table, const AttentionShape& shape);
void attention_forward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                       const Tensor& out, const Tensor& lse);
void attention_backward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                        const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv);
void cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape, const Tensor& cache);
void attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                      const Tensor& cache, const Tensor& out);
void swiglu_forward(const Tensor& gate_up, const Tensor& h);
void swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up, const Tensor& h);
void embedding_forward(const Tensor& ids, const Tensor& table, const Tensor& out);
void embedding_backward(const Tensor& ids, const Tensor& dout, const Tensor& dtable);
void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t columns,
                              const Tensor& statistics);
/// Returns the number of shards that `statistics` holds.
std::int64_t cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t columns,
                                  const Tensor& statistics, const Tensor& losses, const Tensor& totals);
void squared_norm(const Tensor& in, const Tensor& sum);
void gradient_scale(const Tensor& totals, const Tensor& scale, const Tensor& report);
void adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
           const Tensor& master, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq,
           const Tensor& scale);

}  // namespace llama3d::contracts
