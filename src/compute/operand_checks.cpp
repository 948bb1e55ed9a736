#include "compute/operand_checks.hpp"

#include <utility>

namespace llama3d {
namespace {

bool overlap(const Tensor& a, const Tensor& b) {
  const auto* a_begin = static_cast<const std::byte*>(a.data());
  const auto* b_begin = static_cast<const std::byte*>(b.data());
  return a.bytes() > 0 && b.bytes() > 0 && a_begin < b_begin + b.bytes() && b_begin < a_begin + a.bytes();
}

}  // namespace

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

void expect_real_matrix(const Tensor& tensor, const char* name) {
  expect_real(tensor, name);
  expect_rank2(tensor, name);
}

void expect_matrix(const Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t columns,
                   const char* name) {
  expect_dtype(tensor, dtype, name);
  const Shape wanted{rows, columns};
  LLAMA3D_EXPECT(tensor.shape() == wanted, "{} must be {}, is {}", name, wanted.to_string(),
                 tensor.shape().to_string());
}

void expect_elements(const Tensor& tensor, DType dtype, std::int64_t elements, const char* name) {
  expect_dtype(tensor, dtype, name);
  LLAMA3D_EXPECT(tensor.elements() == elements, "{} must have {} elements, is {}", name, elements,
                 tensor.shape().to_string());
}

void expect_apart(const Tensor& output, std::initializer_list<const Tensor*> inputs, const char* name) {
  for (const auto* input : inputs)
    LLAMA3D_EXPECT(!overlap(output, *input), "{} overlaps another tensor", name);
}

void expect_same_or_apart(const Tensor& output, const Tensor& input, const char* name) {
  LLAMA3D_EXPECT(output.data() == input.data() || !overlap(output, input), "{} overlaps an input in part",
                 name);
}

void expect_documents(const DocumentRows& documents, std::int64_t rows) {
  expect_elements(documents.start, DType::int32, rows, "documents.start");
  expect_elements(documents.end, DType::int32, rows, "documents.end");
  expect_elements(documents.position, DType::int32, rows, "documents.position");
}

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

void expect_rope(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                 const AttentionShape& shape) {
  expect_heads(qkv, documents, shape);
  expect_matrix(table, DType::fp32, table.rows(), shape.head_dim, "table");
}

void expect_operands(const GemmOperand& a, const char* a_name, const GemmOperand& b, const char* b_name) {
  for (const auto& [operand, name] : {std::pair{&a, a_name}, {&b, b_name}}) {
    expect_real_matrix(operand->tensor, name);
    LLAMA3D_EXPECT(!operand->scale && operand->layout == GemmLayout::row_major,
                   "{} must be row-major and unscaled, as {} is", name, name_of(operand->tensor.dtype()));
  }
  expect_dtype(b.tensor, a.tensor.dtype(), b_name);
}

}  // namespace llama3d
