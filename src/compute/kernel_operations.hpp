#pragma once
// The operations of Kernels, declared once for whoever implements them: a machine writes
// LLAMA3D_KERNEL_OPERATIONS(LLAMA3D_OVERRIDE_OPERATION) in its class and defines do_NAME for each.

// clang-format off
#define LLAMA3D_KERNEL_OPERATIONS(operation) \
  operation(fill_zero, (const Tensor& out, Stream& stream)) \
  operation(copy, (const Tensor& in, const Tensor& out, Stream& stream)) \
  operation(add, (const Tensor& a, const Tensor& b, const Tensor& out, Stream& stream)) \
  operation(fill_normal, (const Tensor& out, std::uint64_t key, std::int64_t first_row, std::int64_t first_column, std::int64_t global_columns, float standard_deviation, Stream& stream)) \
  operation(linear_forward, (const GemmOperand& x, const GemmOperand& w, const Tensor& y, Stream& stream)) \
  operation(linear_backward_input, (const GemmOperand& dy, const GemmOperand& w, const Tensor& dx, Stream& stream)) \
  operation(linear_backward_weight, (const GemmOperand& dy, const GemmOperand& x, const Tensor& dw, Stream& stream)) \
  operation(add_bias, (const Tensor& y, const Tensor& b, Stream& stream)) \
  operation(bias_backward, (const Tensor& dy, const Tensor& db, Stream& stream)) \
  operation(rms_norm_forward, (const Tensor& x, const Tensor& w, float epsilon, const Tensor& y, const Tensor& rstd, Stream& stream)) \
  operation(add_rms_norm_forward, (const Tensor& residual, const Tensor& delta, const Tensor& w, float epsilon, const Tensor& sum, const Tensor& y, const Tensor& rstd, Stream& stream)) \
  operation(rms_norm_backward, (const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, const Tensor& dresidual, const Tensor& dx, const Tensor& dw, Stream& stream)) \
  operation(head_norm_forward, (const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon, const AttentionShape& shape, const Tensor& raw, const Tensor& rstd, Stream& stream)) \
  operation(head_norm_backward, (const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk, const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq, const Tensor& dwk, Stream& stream)) \
  operation(rope_forward, (const Tensor& qkv, const DocumentRows& documents, const Tensor& table, const AttentionShape& shape, Stream& stream)) \
  operation(rope_backward, (const Tensor& dqkv, const DocumentRows& documents, const Tensor& table, const AttentionShape& shape, Stream& stream)) \
  operation(attention_forward, (const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape, const Tensor& out, const Tensor& lse, Stream& stream)) \
  operation(attention_backward, (const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape, const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv, Stream& stream)) \
  operation(cache_append, (const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape, const Tensor& cache, Stream& stream)) \
  operation(attention_cached, (const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape, const Tensor& cache, const Tensor& out, Stream& stream)) \
  operation(swiglu_forward, (const Tensor& gate_up, const Tensor& h, Stream& stream)) \
  operation(swiglu_backward, (const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up, const Tensor& h, Stream& stream)) \
  operation(embedding_forward, (const Tensor& ids, const Tensor& table, std::int64_t first_id, const Tensor& out, Stream& stream)) \
  operation(embedding_backward, (const Tensor& ids, const Tensor& dout, std::int64_t first_id, const Tensor& dtable, Stream& stream)) \
  operation(cross_entropy_statistics, (const Tensor& logits, const Tensor& targets, std::int64_t first_id, std::int64_t columns, const Tensor& statistics, Stream& stream)) \
  operation(cross_entropy_finish, (const Tensor& logits, const Tensor& targets, std::int64_t first_id, std::int64_t columns, const Tensor& statistics, bool gradient, const Tensor& losses, const Tensor& totals, Stream& stream)) \
  operation(squared_norm, (const Tensor& in, const Tensor& sum, Stream& stream)) \
  operation(gradient_scale, (const Tensor& totals, float max_norm, const Tensor& scale, const Tensor& report, Stream& stream)) \
  operation(adamw, (const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter, const Tensor& master, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& scale, Stream& stream))
// clang-format on

#define LLAMA3D_VIRTUAL_OPERATION(name, parameters) virtual void do_##name parameters = 0;
#define LLAMA3D_OVERRIDE_OPERATION(name, parameters) void do_##name parameters override;
