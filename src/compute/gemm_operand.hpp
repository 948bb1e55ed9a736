#pragma once

#include "compute/tensor.hpp"

namespace llama3d {

/// How a matrix's elements lie in its operand's tensor.
enum class GemmLayout {
  row_major,
  transposed,  ///< the tensor is the transpose, (columns, rows): what GEMMs of 8-bit formats want of some
};

/// A matrix that a GEMM reads.
struct GemmOperand {
  Tensor tensor;
  /// fp32 factors of the elements: one of all, or one of each row or block of a format narrower than bf16.
  /// Empty where elements are what they are.
  Tensor scale = {};
  GemmLayout layout = GemmLayout::row_major;

  GemmOperand(const Tensor& elements) : tensor(elements) {}  // implicit: most operands are plain tensors
  GemmOperand(const Tensor& elements, const Tensor& factors, GemmLayout stored)
      : tensor(elements), scale(factors), layout(stored) {}

  /// Of the matrix.
  std::int64_t rows() const { return layout == GemmLayout::row_major ? tensor.rows() : tensor.columns(); }
  std::int64_t columns() const { return layout == GemmLayout::row_major ? tensor.columns() : tensor.rows(); }
};

}  // namespace llama3d
