#include "compute/kernels.hpp"

#include "compute/operand_checks.hpp"

namespace llama3d {

void Kernels::fill_zero(const Tensor& out, Stream& stream) {
  LLAMA3D_EXPECT(out, "fill_zero of an empty tensor");
  do_fill_zero(out, stream);
}

void Kernels::copy(const Tensor& in, const Tensor& out, Stream& stream) {
  expect_real(in, "in");
  expect_real(out, "out");
  expect_elements(out, out.dtype(), in.elements(), "out");
  expect_apart(out, {&in}, "out");
  do_copy(in, out, stream);
}

void Kernels::add(const Tensor& a, const Tensor& b, const Tensor& out, Stream& stream) {
  expect_real(a, "a");
  expect_elements(b, a.dtype(), a.elements(), "b");
  expect_elements(out, a.dtype(), a.elements(), "out");
  expect_same_or_apart(out, a, "out");
  expect_same_or_apart(out, b, "out");
  do_add(a, b, out, stream);
}

void Kernels::fill_normal(const Tensor& out, std::uint64_t key, std::int64_t first_row,
                          std::int64_t first_column, std::int64_t global_columns, float standard_deviation,
                          Stream& stream) {
  expect_real(out, "out");
  LLAMA3D_EXPECT(first_row >= 0 && first_column >= 0 && first_column + out.columns() <= global_columns,
                 "columns [{}, {}) of a matrix {} wide", first_column, first_column + out.columns(),
                 global_columns);
  do_fill_normal(out, key, first_row, first_column, global_columns, standard_deviation, stream);
}

void Kernels::linear_forward(const GemmOperand& x, const GemmOperand& w, const Tensor& y, Stream& stream) {
  expect_operands(x, "x", w, "w");
  LLAMA3D_EXPECT(w.columns() == x.columns(), "w must have {} columns, has {}", x.columns(), w.columns());
  expect_matrix(y, x.tensor.dtype(), x.rows(), w.rows(), "y");
  expect_apart(y, {&x.tensor, &w.tensor}, "y");
  do_linear_forward(x, w, y, stream);
}

void Kernels::linear_backward_input(const GemmOperand& dy, const GemmOperand& w, const Tensor& dx,
                                    Stream& stream) {
  expect_operands(dy, "dy", w, "w");
  LLAMA3D_EXPECT(w.rows() == dy.columns(), "w must have {} rows, has {}", dy.columns(), w.rows());
  expect_matrix(dx, dy.tensor.dtype(), dy.rows(), w.columns(), "dx");
  expect_apart(dx, {&dy.tensor, &w.tensor}, "dx");
  do_linear_backward_input(dy, w, dx, stream);
}

void Kernels::linear_backward_weight(const GemmOperand& dy, const GemmOperand& x, const Tensor& dw,
                                     Stream& stream) {
  expect_operands(dy, "dy", x, "x");
  LLAMA3D_EXPECT(x.rows() == dy.rows(), "x must have {} rows, has {}", dy.rows(), x.rows());
  expect_real(dw, "dw");
  expect_matrix(dw, dw.dtype(), dy.columns(), x.columns(), "dw");
  expect_apart(dw, {&dy.tensor, &x.tensor}, "dw");
  do_linear_backward_weight(dy, x, dw, stream);
}

void Kernels::add_bias(const Tensor& y, const Tensor& b, Stream& stream) {
  expect_real_matrix(y, "y");
  expect_elements(b, y.dtype(), y.columns(), "b");
  expect_apart(y, {&b}, "y");
  do_add_bias(y, b, stream);
}

void Kernels::bias_backward(const Tensor& dy, const Tensor& db, Stream& stream) {
  expect_real_matrix(dy, "dy");
  expect_real(db, "db");
  expect_elements(db, db.dtype(), dy.columns(), "db");
  expect_apart(db, {&dy}, "db");
  do_bias_backward(dy, db, stream);
}

void Kernels::rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y,
                               const Tensor& rstd, Stream& stream) {
  expect_norm(x, w, y, rstd);
  expect_apart(y, {&x, &w, &rstd}, "y");
  do_rms_norm_forward(x, w, epsilon, y, rstd, stream);
}

void Kernels::add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w,
                                   float epsilon, const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                   Stream& stream) {
  expect_norm(residual, w, y, rstd);
  expect_matrix(delta, residual.dtype(), residual.rows(), residual.columns(), "delta");
  expect_matrix(sum, residual.dtype(), residual.rows(), residual.columns(), "sum");
  expect_same_or_apart(sum, residual, "sum");
  expect_same_or_apart(sum, delta, "sum");
  expect_apart(y, {&residual, &delta, &sum, &w, &rstd}, "y");
  do_add_rms_norm_forward(residual, delta, w, epsilon, sum, y, rstd, stream);
}

void Kernels::rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                                const Tensor& dresidual, const Tensor& dx, const Tensor& dw, Stream& stream) {
  expect_norm(x, w, dy, rstd);
  if (dresidual) {
    expect_matrix(dresidual, x.dtype(), x.rows(), x.columns(), "dresidual");
    expect_same_or_apart(dx, dresidual, "dx");
  }
  expect_matrix(dx, x.dtype(), x.rows(), x.columns(), "dx");
  expect_same_or_apart(dx, dy, "dx");
  expect_apart(dx, {&x, &w, &rstd, &dw}, "dx");
  expect_real(dw, "dw");
  expect_elements(dw, dw.dtype(), x.columns(), "dw");
  do_rms_norm_backward(dy, x, w, rstd, dresidual, dx, dw, stream);
}

void Kernels::head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon,
                                const AttentionShape& shape, const Tensor& raw, const Tensor& rstd,
                                Stream& stream) {
  expect_head_norm(qkv, wq, wk, shape, raw, rstd);
  expect_apart(raw, {&wq, &wk, &rstd}, "raw");
  do_head_norm_forward(qkv, wq, wk, epsilon, shape, raw, rstd, stream);
}

void Kernels::head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                                 const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq,
                                 const Tensor& dwk, Stream& stream) {
  expect_head_norm(dqkv, wq, wk, shape, raw, rstd);
  expect_real(dwq, "dwq");
  expect_elements(dwq, dwq.dtype(), shape.head_dim, "dwq");
  expect_elements(dwk, dwq.dtype(), shape.head_dim, "dwk");
  expect_apart(dwq, {&dqkv, &raw, &wq, &wk, &rstd, &dwk}, "dwq");
  expect_apart(dwk, {&dqkv, &raw, &wq, &wk, &rstd}, "dwk");
  do_head_norm_backward(dqkv, raw, wq, wk, rstd, shape, dwq, dwk, stream);
}

void Kernels::rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                           const AttentionShape& shape, Stream& stream) {
  expect_rope(qkv, documents, table, shape);
  do_rope_forward(qkv, documents, table, shape, stream);
}

void Kernels::rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                            const AttentionShape& shape, Stream& stream) {
  expect_rope(dqkv, documents, table, shape);
  do_rope_backward(dqkv, documents, table, shape, stream);
}

void Kernels::attention_forward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                                const Tensor& out, const Tensor& lse, Stream& stream) {
  expect_attention(qkv, documents, shape, out, lse);
  expect_apart(out, {&qkv, &lse}, "out");
  do_attention_forward(qkv, documents, shape, out, lse, stream);
}

void Kernels::attention_backward(const Tensor& qkv, const DocumentRows& documents,
                                 const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                 const Tensor& dout, const Tensor& dqkv, Stream& stream) {
  expect_attention(qkv, documents, shape, out, lse);
  expect_matrix(dout, qkv.dtype(), qkv.rows(), shape.output_columns(), "dout");
  expect_matrix(dqkv, qkv.dtype(), qkv.rows(), shape.fused_columns(), "dqkv");
  expect_apart(dqkv, {&qkv, &out, &lse, &dout}, "dqkv");
  do_attention_backward(qkv, documents, shape, out, lse, dout, dqkv, stream);
}

void Kernels::cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                           const Tensor& cache, Stream& stream) {
  expect_cache(qkv, rows, shape, cache);
  expect_apart(cache, {&qkv, &rows.slot, &rows.position}, "cache");
  do_cache_append(qkv, rows, shape, cache, stream);
}

void Kernels::attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                               const Tensor& cache, const Tensor& out, Stream& stream) {
  expect_cache(qkv, rows, shape, cache);
  expect_matrix(out, qkv.dtype(), qkv.rows(), shape.output_columns(), "out");
  expect_apart(out, {&qkv, &cache, &rows.slot, &rows.position}, "out");
  do_attention_cached(qkv, rows, shape, cache, out, stream);
}

void Kernels::swiglu_forward(const Tensor& gate_up, const Tensor& h, Stream& stream) {
  expect_real_matrix(h, "h");
  expect_matrix(gate_up, h.dtype(), h.rows(), 2 * h.columns(), "gate_up");
  expect_apart(h, {&gate_up}, "h");
  do_swiglu_forward(gate_up, h, stream);
}

void Kernels::swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up,
                              const Tensor& h, Stream& stream) {
  expect_real_matrix(dh, "dh");
  expect_matrix(gate_up, dh.dtype(), dh.rows(), 2 * dh.columns(), "gate_up");
  expect_matrix(dgate_up, dh.dtype(), dh.rows(), 2 * dh.columns(), "dgate_up");
  expect_same_or_apart(dgate_up, gate_up, "dgate_up");
  expect_apart(dgate_up, {&dh}, "dgate_up");
  if (h) {
    expect_matrix(h, dh.dtype(), dh.rows(), dh.columns(), "h");
    expect_apart(h, {&gate_up, &dh, &dgate_up}, "h");
  }
  do_swiglu_backward(gate_up, dh, dgate_up, h, stream);
}

void Kernels::embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_id,
                                const Tensor& out, Stream& stream) {
  expect_real_matrix(table, "table");
  expect_rank2(out, "out");
  expect_matrix(out, table.dtype(), out.rows(), table.columns(), "out");
  expect_elements(ids, DType::int32, out.rows(), "ids");
  expect_apart(out, {&ids, &table}, "out");
  do_embedding_forward(ids, table, first_id, out, stream);
}

void Kernels::embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_id,
                                 const Tensor& dtable, Stream& stream) {
  expect_real_matrix(dout, "dout");
  expect_real_matrix(dtable, "dtable");
  expect_matrix(dtable, dtable.dtype(), dtable.rows(), dout.columns(), "dtable");
  expect_elements(ids, DType::int32, dout.rows(), "ids");
  expect_apart(dtable, {&ids, &dout}, "dtable");
  do_embedding_backward(ids, dout, first_id, dtable, stream);
}

void Kernels::cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                       std::int64_t columns, const Tensor& statistics, Stream& stream) {
  expect_loss(logits, targets, columns);
  expect_elements(statistics, DType::fp32, logits.rows() * 3, "statistics");
  expect_apart(statistics, {&logits, &targets}, "statistics");
  do_cross_entropy_statistics(logits, targets, first_id, columns, statistics, stream);
}

void Kernels::cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                   std::int64_t columns, const Tensor& statistics, bool gradient,
                                   const Tensor& losses, const Tensor& totals, Stream& stream) {
  expect_loss(logits, targets, columns);
  const std::int64_t rows = logits.rows();
  expect_dtype(statistics, DType::fp32, "statistics");
  const std::int64_t shards = rows == 0 ? 1 : statistics.elements() / (3 * rows);
  expect_elements(statistics, DType::fp32, shards * rows * 3, "statistics");
  expect_elements(losses, DType::fp32, rows, "losses");
  expect_elements(totals, DType::fp64, 2, "totals");
  expect_apart(losses, {&logits, &targets, &statistics}, "losses");
  do_cross_entropy_finish(logits, targets, first_id, columns, statistics, gradient, losses, totals, stream);
}

void Kernels::squared_norm(const Tensor& in, const Tensor& sum, Stream& stream) {
  expect_real(in, "in");
  expect_elements(sum, DType::fp64, 1, "sum");
  do_squared_norm(in, sum, stream);
}

void Kernels::gradient_scale(const Tensor& totals, float max_norm, const Tensor& scale, const Tensor& report,
                             Stream& stream) {
  expect_elements(totals, DType::fp64, 3, "totals");
  expect_elements(scale, DType::fp32, 1, "scale");
  expect_elements(report, DType::fp32, 2, "report");
  do_gradient_scale(totals, max_norm, scale, report, stream);
}

void Kernels::adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
                    const Tensor& master, const Tensor& gradient, const Tensor& exp_avg,
                    const Tensor& exp_avg_sq, const Tensor& scale, Stream& stream) {
  const std::int64_t n = parameter.elements(), states = exp_avg.elements();
  expect_real(parameter, "parameter");
  expect_real(gradient, "gradient");
  expect_elements(gradient, gradient.dtype(), n, "gradient");
  if (master) expect_elements(master, DType::fp32, states, "master");
  expect_real(exp_avg, "exp_avg");
  expect_elements(exp_avg_sq, exp_avg.dtype(), states, "exp_avg_sq");
  for (const AdamWPiece& piece : pieces) {
    const auto inside = [&](std::int64_t begin, std::int64_t extent) {
      return begin >= 0 && piece.elements >= 0 && begin + piece.elements <= extent;
    };
    LLAMA3D_EXPECT(inside(piece.parameter_begin, n) && inside(piece.state_begin, states) && piece.columns > 0,
                   "a piece of {} elements at {} of {} parameters and {} of {} states", piece.elements,
                   piece.parameter_begin, n, piece.state_begin, states);
  }
  expect_elements(scale, DType::fp32, 1, "scale");
  LLAMA3D_EXPECT(step.step >= 1, "step {}: steps count from 1", step.step);
  do_adamw(step, pieces, parameter, master, gradient, exp_avg, exp_avg_sq, scale, stream);
}

}  // namespace llama3d
