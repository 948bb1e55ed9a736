#pragma once
// Parts of global tensors, the unit that checkpoints are written and read in.

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.hpp"

namespace llama3d {

/// Rows [row_begin, row_end) and columns [column_begin, column_end) of a global tensor. A one-dimensional
/// tensor of n elements counts as n rows of one column.
struct Rectangle {
  std::int64_t row_begin = 0, row_end = 0, column_begin = 0, column_end = 0;

  std::int64_t rows() const { return row_end - row_begin; }
  std::int64_t columns() const { return column_end - column_begin; }
  std::int64_t elements() const { return rows() * columns(); }
  bool empty() const { return row_end <= row_begin || column_end <= column_begin; }
  bool operator==(const Rectangle&) const = default;
};

/// The common part; empty() when there is none.
Rectangle intersection(const Rectangle& a, const Rectangle& b);
/// All of a tensor of one or two dimensions.
Rectangle whole(const std::vector<std::int64_t>& global_shape);
/// "[0:32, 0:64]"
std::string to_string(const Rectangle& rectangle);

/// What one rank holds of one global tensor.
struct CheckpointPiece {
  std::string dataset;  ///< full name: "/model/model.norm.weight"
  DType dtype = DType::fp32;
  std::vector<std::int64_t> global_shape;  ///< one or two dimensions
  /// Disjoint. A flat slice of a row-major local block is at most three; see slice_of_block().
  std::vector<Rectangle> rectangles;
  const void* data = nullptr;  ///< the rectangles' elements one after the other, each row-major; not owned
};

/// The rectangles, in global coordinates and in order, of elements [begin, end) of a block stored row-major:
/// the part of a last row, whole rows, the part of a first row.
std::vector<Rectangle> slice_of_block(const Rectangle& block, std::int64_t begin, std::int64_t end);

/// Throws ContractViolation unless rectangles lie inside the shape and the shape has one or two dimensions.
void expect_valid(const CheckpointPiece& piece);

}  // namespace llama3d
