#include "compute/contracts.hpp"

namespace llama3d::contracts {
namespace {

bool overlap(const Tensor& a, const Tensor& b) {
  const auto* a_begin = static_cast<const std::byte*>(a.data());
  const auto* b_begin = static_cast<const std::byte*>(b.data());
  return a.bytes() > 0 && b.bytes() > 0 && a_begin < b_begin + b.bytes() && b_begin < a_begin + a.bytes();
}

/// fp32 or bf16.
void expect_real(const Tensor& tensor, const char* name) {
  LLAMA3D_EXPECT(tensor && (tensor.dtype() == DType::fp32 || tensor.dtype() == DType::bf16),
                 "{} must be fp32 or bf16, is {}", name, tensor ? name_of(tensor.dtype()) : "empty");
}

void expect_dtype(const Tensor& tensor, DType dtype, const char* name) {
  LLAMA3D_EXPECT(tensor && tensor.dtype() == dtype, "{} must be {}, is {}", name, name_of(dtype),
                 tensor ? name_of(tensor.dtype()) : "empty");
}

void expect_rank2(const Tensor& tensor, const char* name) {
  LLAMA3D_EXPECT(tensor && tensor.shape().rank() == 2, "{} must be a matrix, is {}", name,
                 tensor.shape().to_string());
}

/// Rank 2, fp32 or bf16.
void expect_real_matrix(const Tensor& tensor, const char* name) {
  expect_real(tensor, name);
  expect_rank2(tensor, name);
}

/// Rank 2 with these extents.
void expect_matrix(const Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t columns,
                   const char* name) {
  expect_dtype(tensor, dtype, name);
  const Shape wanted{rows, columns};
  LLAMA3D_EXPECT(tensor.shape() == wanted, "{} must be {}, is {}", name, wanted.to_string(),
                 tensor.shape().to_string());
}

/// So many elements, in any shape.
void expect_elements(const Tensor& tensor, DType dtype, std::int64_t elements, const char* name) {
  expect_dtype(tensor, dtype, name);
  LLAMA3D_EXPECT(tensor.elements() == elements, "{} must have {} elements, is {}", name, elements,
                 tensor.shape().to_string());
}

/// No byte of `output` is a byte of an input.
void expect_apart(const Tensor& output, std::initializer_list<const Tensor*> inputs, const char* name) {
  for (const auto* input : inputs)
    LLAMA3D_EXPECT(!overlap(output, *input), "{} overlaps another tensor", name);
}

/// The same memory or no byte in common.
void expect_same_or_apart(const Tensor& output, const Tensor& input, const char* name) {
  LLAMA3D_EXPECT(output.data() == input.data() || !overlap(output, input), "{} overlaps an input in part",
                 name);
}

void expect_documents(const DocumentRows& documents, std::int64_t rows) {
  expect_elements(documents.start, DType::int32, rows, "documents.start");
  expect_elements(documents.end, DType::int32, rows, "documents.end");
  expect_elements(documents.position, DType::int32, rows, "documents.position");
}

/// A fused query, key and value tensor.
void expect_fused(const Tensor& qkv, const AttentionShape& shape) {
  LLAMA3D_EXPECT(shape.key_value_heads > 0 && shape.query_heads > 0 && shape.head_dim > 0 &&
                     shape.query_heads % shape.key_value_heads == 0 && shape.head_dim % 2 == 0,
                 "{} query heads, {} key-value heads, head size {}", shape.query_heads, shape.key_value_heads,
                 shape.head_dim);
  expect_real_matrix(qkv, "qkv");
  expect_matrix(qkv, qkv.dtype(), qkv.rows(), shape.fused_columns(), "qkv");
}

void expect_heads(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape) {
  expect_fused(qkv, shape);
  expect_documents(documents, qkv.rows());
}

void expect_cache(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                  const Tensor& cache) {
  expect_fused(qkv, shape);
  expect_elements(rows.slot, DType::int32, qkv.rows(), "rows.slot");
  expect_elements(rows.position, DType::int32, qkv.rows(), "rows.position");
  expect_dtype(cache, qkv.dtype(), "cache");
  LLAMA3D_EXPECT(cache.shape().rank() == 3 && cache.shape()[2] == 2 * shape.key_value_heads * shape.head_dim,
                 "cache must be slots x capacity x {}, is {}", 2 * shape.key_value_heads * shape.head_dim,
                 cache.shape().to_string());
}

void expect_attention(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                      const Tensor& out, const Tensor& lse) {
  expect_heads(qkv, documents, shape);
  expect_matrix(out, qkv.dtype(), qkv.rows(), shape.output_columns(), "out");
  expect_elements(lse, DType::fp32, qkv.rows() * shape.query_heads, "lse");
}

void expect_norm(const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& rstd) {
  expect_real_matrix(x, "x");
  expect_elements(w, x.dtype(), x.columns(), "w");
  expect_matrix(y, x.dtype(), x.rows(), x.columns(), "y");
  expect_elements(rstd, DType::fp32, x.rows(), "rstd");
}

/// What the norms of heads read and write, forward or backward.
void expect_head_norm(const Tensor& qkv, const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                      const Tensor& raw, const Tensor& rstd) {
  expect_fused(qkv, shape);
  expect_elements(wq, qkv.dtype(), shape.head_dim, "wq");
  expect_elements(wk, qkv.dtype(), shape.head_dim, "wk");
  const std::int64_t heads = shape.query_heads + shape.key_value_heads;
  expect_matrix(raw, qkv.dtype(), qkv.rows(), heads * shape.head_dim, "raw");
  expect_elements(rstd, DType::fp32, qkv.rows() * heads, "rstd");
  expect_apart(qkv, {&wq, &wk, &raw, &rstd}, "qkv");
}

void expect_loss(const Tensor& logits, const Tensor& targets, std::int64_t columns) {
  expect_real_matrix(logits, "logits");
  expect_elements(targets, DType::int32, logits.rows(), "targets");
  LLAMA3D_EXPECT(columns >= 0 && columns <= logits.columns(), "{} existing columns of {} logits", columns,
                 logits.columns());
}

}  // namespace

// --- data movement -----------------------------------------------------------------------------------------

void fill_zero(const Tensor& out) {
  LLAMA3D_EXPECT(out, "fill_zero of an empty tensor");
}

void copy(const Tensor& in, const Tensor& out) {
  expect_real(in, "in");
  expect_real(out, "out");
  expect_elements(out, out.dtype(), in.elements(), "out");
  expect_apart(out, {&in}, "out");
}

void add(const Tensor& a, const Tensor& b, const Tensor& out) {
  expect_real(a, "a");
  expect_elements(b, a.dtype(), a.elements(), "b");
  expect_elements(out, a.dtype(), a.elements(), "out");
  expect_same_or_apart(out, a, "out");
  expect_same_or_apart(out, b, "out");
}

void fill_normal(const Tensor& out, std::int64_t first_row, std::int64_t first_column,
                 std::int64_t global_columns) {
  expect_real(out, "out");
  LLAMA3D_EXPECT(first_row >= 0 && first_column >= 0 && first_column + out.columns() <= global_columns,
                 "columns [{}, {}) of a matrix {} wide", first_column, first_column + out.columns(),
                 global_columns);
}

// --- matrix products ---------------------------------------------------------------------------------------

void linear_forward(const Tensor& x, const Tensor& w, const Tensor& y) {
  expect_real_matrix(x, "x");
  expect_rank2(w, "w");
  expect_matrix(w, x.dtype(), w.rows(), x.columns(), "w");
  expect_matrix(y, x.dtype(), x.rows(), w.rows(), "y");
  expect_apart(y, {&x, &w}, "y");
}

void linear_backward_input(const Tensor& dy, const Tensor& w, const Tensor& dx) {
  expect_real_matrix(dy, "dy");
  expect_rank2(w, "w");
  expect_matrix(w, dy.dtype(), dy.columns(), w.columns(), "w");
  expect_matrix(dx, dy.dtype(), dy.rows(), w.columns(), "dx");
  expect_apart(dx, {&dy, &w}, "dx");
}

void linear_backward_weight(const Tensor& dy, const Tensor& x, const Tensor& dw) {
  expect_real_matrix(dy, "dy");
  expect_rank2(x, "x");
  expect_matrix(x, dy.dtype(), dy.rows(), x.columns(), "x");
  expect_real(dw, "dw");
  expect_matrix(dw, dw.dtype(), dy.columns(), x.columns(), "dw");
  expect_apart(dw, {&dy, &x}, "dw");
}

void add_bias(const Tensor& y, const Tensor& b) {
  expect_real_matrix(y, "y");
  expect_elements(b, y.dtype(), y.columns(), "b");
  expect_apart(y, {&b}, "y");
}

void bias_backward(const Tensor& dy, const Tensor& db) {
  expect_real_matrix(dy, "dy");
  expect_real(db, "db");
  expect_elements(db, db.dtype(), dy.columns(), "db");
  expect_apart(db, {&dy}, "db");
}

// --- RMSNorm -----------------------------------------------------------------------------------------------

void rms_norm_forward(const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& rstd) {
  expect_norm(x, w, y, rstd);
  expect_apart(y, {&x, &w, &rstd}, "y");
}

void add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w, const Tensor& sum,
                          const Tensor& y, const Tensor& rstd) {
  expect_norm(residual, w, y, rstd);
  expect_matrix(delta, residual.dtype(), residual.rows(), residual.columns(), "delta");
  expect_matrix(sum, residual.dtype(), residual.rows(), residual.columns(), "sum");
  expect_same_or_apart(sum, residual, "sum");
  expect_same_or_apart(sum, delta, "sum");
  expect_apart(y, {&residual, &delta, &sum, &w, &rstd}, "y");
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                       const Tensor& dresidual, const Tensor& dx, const Tensor& dw) {
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
}

// --- attention ---------------------------------------------------------------------------------------------

void head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                       const Tensor& raw, const Tensor& rstd) {
  expect_head_norm(qkv, wq, wk, shape, raw, rstd);
  expect_apart(raw, {&wq, &wk, &rstd}, "raw");
}

void head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                        const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq,
                        const Tensor& dwk) {
  expect_head_norm(dqkv, wq, wk, shape, raw, rstd);
  expect_real(dwq, "dwq");
  expect_elements(dwq, dwq.dtype(), shape.head_dim, "dwq");
  expect_elements(dwk, dwq.dtype(), shape.head_dim, "dwk");
  expect_apart(dwq, {&dqkv, &raw, &wq, &wk, &rstd, &dwk}, "dwq");
  expect_apart(dwk, {&dqkv, &raw, &wq, &wk, &rstd}, "dwk");
}

void rope(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
          const AttentionShape& shape) {
  expect_heads(qkv, documents, shape);
  expect_matrix(table, DType::fp32, table.rows(), shape.head_dim, "table");
}

void attention_forward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                       const Tensor& out, const Tensor& lse) {
  expect_attention(qkv, documents, shape, out, lse);
  expect_apart(out, {&qkv, &lse}, "out");
}

void attention_backward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                        const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  expect_attention(qkv, documents, shape, out, lse);
  expect_matrix(dout, qkv.dtype(), qkv.rows(), shape.output_columns(), "dout");
  expect_matrix(dqkv, qkv.dtype(), qkv.rows(), shape.fused_columns(), "dqkv");
  expect_apart(dqkv, {&qkv, &out, &lse, &dout}, "dqkv");
}

void cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                  const Tensor& cache) {
  expect_cache(qkv, rows, shape, cache);
  expect_apart(cache, {&qkv, &rows.slot, &rows.position}, "cache");
}

void attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                      const Tensor& cache, const Tensor& out) {
  expect_cache(qkv, rows, shape, cache);
  expect_matrix(out, qkv.dtype(), qkv.rows(), shape.output_columns(), "out");
  expect_apart(out, {&qkv, &cache, &rows.slot, &rows.position}, "out");
}

// --- SwiGLU ------------------------------------------------------------------------------------------------

void swiglu_forward(const Tensor& gate_up, const Tensor& h) {
  expect_real_matrix(h, "h");
  expect_matrix(gate_up, h.dtype(), h.rows(), 2 * h.columns(), "gate_up");
  expect_apart(h, {&gate_up}, "h");
}

void swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up, const Tensor& h) {
  expect_real_matrix(dh, "dh");
  expect_matrix(gate_up, dh.dtype(), dh.rows(), 2 * dh.columns(), "gate_up");
  expect_matrix(dgate_up, dh.dtype(), dh.rows(), 2 * dh.columns(), "dgate_up");
  expect_same_or_apart(dgate_up, gate_up, "dgate_up");
  expect_apart(dgate_up, {&dh}, "dgate_up");
  if (!h) return;
  expect_matrix(h, dh.dtype(), dh.rows(), dh.columns(), "h");
  expect_apart(h, {&gate_up, &dh, &dgate_up}, "h");
}

// --- embedding and loss ------------------------------------------------------------------------------------

void embedding_forward(const Tensor& ids, const Tensor& table, const Tensor& out) {
  expect_real_matrix(table, "table");
  expect_rank2(out, "out");
  expect_matrix(out, table.dtype(), out.rows(), table.columns(), "out");
  expect_elements(ids, DType::int32, out.rows(), "ids");
  expect_apart(out, {&ids, &table}, "out");
}

void embedding_backward(const Tensor& ids, const Tensor& dout, const Tensor& dtable) {
  expect_real_matrix(dout, "dout");
  expect_real_matrix(dtable, "dtable");
  expect_matrix(dtable, dtable.dtype(), dtable.rows(), dout.columns(), "dtable");
  expect_elements(ids, DType::int32, dout.rows(), "ids");
  expect_apart(dtable, {&ids, &dout}, "dtable");
}

void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t columns,
                              const Tensor& statistics) {
  expect_loss(logits, targets, columns);
  expect_elements(statistics, DType::fp32, logits.rows() * 3, "statistics");
  expect_apart(statistics, {&logits, &targets}, "statistics");
}

std::int64_t cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t columns,
                                  const Tensor& statistics, const Tensor& losses, const Tensor& totals) {
  expect_loss(logits, targets, columns);
  const std::int64_t rows = logits.rows();
  expect_dtype(statistics, DType::fp32, "statistics");
  const std::int64_t shards = rows == 0 ? 1 : statistics.elements() / (3 * rows);
  expect_elements(statistics, DType::fp32, shards * rows * 3, "statistics");
  expect_elements(losses, DType::fp32, rows, "losses");
  expect_elements(totals, DType::fp64, 2, "totals");
  expect_apart(losses, {&logits, &targets, &statistics}, "losses");
  return shards;
}

// --- optimizer ---------------------------------------------------------------------------------------------

void squared_norm(const Tensor& in, const Tensor& sum) {
  expect_real(in, "in");
  expect_elements(sum, DType::fp64, 1, "sum");
}

void gradient_scale(const Tensor& totals, const Tensor& scale, const Tensor& report) {
  expect_elements(totals, DType::fp64, 3, "totals");
  expect_elements(scale, DType::fp32, 1, "scale");
  expect_elements(report, DType::fp32, 2, "report");
}

void adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
           const Tensor& master, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq,
           const Tensor& scale) {
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
}

}  // namespace llama3d::contracts
