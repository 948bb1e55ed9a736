#pragma once
// Contracts of the operations. Kept out of the kernel files: those are compiled for newer CPUs, and the
// formatting code that messages need must stay runnable on every one.

#include <cstdint>
#include <initializer_list>

#include "compute/kernels.hpp"

namespace llama3d::host {

/// fp32 or bf16.
void expect_real(const Tensor& tensor, const char* name);
void expect_dtype(const Tensor& tensor, DType dtype, const char* name);
/// Rank 2 with these extents.
void expect_matrix(const Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t columns,
                   const char* name);
/// So many elements, in any shape.
void expect_elements(const Tensor& tensor, DType dtype, std::int64_t elements, const char* name);
void expect_rank2(const Tensor& tensor, const char* name);
/// No byte of `output` is a byte of an input.
void expect_apart(const Tensor& output, std::initializer_list<const Tensor*> inputs, const char* name);
/// The same memory or no byte in common.
void expect_same_or_apart(const Tensor& output, const Tensor& input, const char* name);
void expect_documents(const DocumentRows& documents, std::int64_t rows);
void expect_attention_shape(const AttentionShape& shape);
/// The tensors of attention's forward call, and documents that are contiguous and inside the rows.
void expect_attention(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                      const Tensor& out, const Tensor& lse);
/// A plain condition with its words.
void expect(bool condition, const char* what);

}  // namespace llama3d::host
