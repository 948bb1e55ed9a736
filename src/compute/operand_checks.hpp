#pragma once
// What Kernels checks of an operation's operands before a machine gets them: shapes, dtypes and aliasing, as
// compute/kernels.hpp states them. A broken contract is a ContractViolation. What lies in the tensors is not
// looked at.

#include <initializer_list>

#include "compute/kernels.hpp"

namespace llama3d {

/// fp32 or bf16.
void expect_real(const Tensor& tensor, const char* name);
void expect_dtype(const Tensor& tensor, DType dtype, const char* name);
void expect_rank2(const Tensor& tensor, const char* name);
/// Rank 2, fp32 or bf16.
void expect_real_matrix(const Tensor& tensor, const char* name);
/// Rank 2 with these extents.
void expect_matrix(const Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t columns,
                   const char* name);
/// So many elements, in any shape.
void expect_elements(const Tensor& tensor, DType dtype, std::int64_t elements, const char* name);
/// No byte of `output` is a byte of an input.
void expect_apart(const Tensor& output, std::initializer_list<const Tensor*> inputs, const char* name);
/// The same memory or no byte in common.
void expect_same_or_apart(const Tensor& output, const Tensor& input, const char* name);
/// Two matrices of one GEMM: of one type, fp32 or bf16, which are row-major and have no scale.
void expect_operands(const GemmOperand& a, const char* a_name, const GemmOperand& b, const char* b_name);

// What several operations take.
void expect_documents(const DocumentRows& documents, std::int64_t rows);
/// A fused query, key and value tensor.
void expect_fused(const Tensor& qkv, const AttentionShape& shape);
void expect_heads(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape);
void expect_cache(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape, const Tensor& cache);
void expect_attention(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                      const Tensor& out, const Tensor& lse);
void expect_norm(const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& rstd);
void expect_head_norm(const Tensor& qkv, const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                      const Tensor& raw, const Tensor& rstd);
void expect_rope(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                 const AttentionShape& shape);
void expect_loss(const Tensor& logits, const Tensor& targets, std::int64_t columns);

}  // namespace llama3d
