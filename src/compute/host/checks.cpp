#include "compute/host/checks.hpp"

namespace llama3d::host {
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

void expect_attention_shape(const AttentionShape& shape) {
  LLAMA3D_EXPECT(shape.key_value_heads > 0 && shape.query_heads > 0 && shape.head_dim > 0 &&
                     shape.query_heads % shape.key_value_heads == 0 && shape.head_dim % 2 == 0,
                 "{} query heads, {} key-value heads, head size {}", shape.query_heads, shape.key_value_heads,
                 shape.head_dim);
}

void expect_attention(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                      const Tensor& out, const Tensor& lse) {
  expect_attention_shape(shape);
  expect_real(qkv, "qkv");
  expect_rank2(qkv, "qkv");
  const std::int64_t rows = qkv.rows();
  expect_matrix(qkv, qkv.dtype(), rows, shape.fused_columns(), "qkv");
  expect_documents(documents, rows);
  expect_matrix(out, qkv.dtype(), rows, shape.output_columns(), "out");
  expect_elements(lse, DType::fp32, rows * shape.query_heads, "lse");
  const auto* start = static_cast<const std::int32_t*>(documents.start.data());
  const auto* end = static_cast<const std::int32_t*>(documents.end.data());
  for (std::int64_t t = 0; t < rows; ++t) {
    const bool first = t == 0 || end[t - 1] == t;
    const bool consistent = first ? start[t] == t && end[t] > t && end[t] <= rows
                                  : start[t] == start[t - 1] && end[t] == end[t - 1];
    LLAMA3D_EXPECT(consistent, "row {} lies in [{}, {}), which does not continue the documents before it", t,
                   start[t], end[t]);
  }
}

void expect(bool condition, const char* what) {
  LLAMA3D_EXPECT(condition, "{}", what);
}

}  // namespace llama3d::host
