#include "io/checkpoint/checkpoint_piece.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace llama3d {

Rectangle intersection(const Rectangle& a, const Rectangle& b) {
  return {std::max(a.row_begin, b.row_begin), std::min(a.row_end, b.row_end),
          std::max(a.column_begin, b.column_begin), std::min(a.column_end, b.column_end)};
}

Rectangle whole(const std::vector<std::int64_t>& global_shape) {
  LLAMA3D_EXPECT(global_shape.size() == 1 || global_shape.size() == 2, "tensor of {} dimensions",
                 global_shape.size());
  return {0, global_shape[0], 0, global_shape.size() == 2 ? global_shape[1] : 1};
}

std::string to_string(const Rectangle& r) {
  return fmt::format("[{}:{}, {}:{}]", r.row_begin, r.row_end, r.column_begin, r.column_end);
}

std::vector<Rectangle> slice_of_block(const Rectangle& block, std::int64_t begin, std::int64_t end) {
  LLAMA3D_EXPECT(begin >= 0 && begin <= end && end <= block.elements(), "elements {} to {} of block {}",
                 begin, end, to_string(block));
  std::vector<Rectangle> result;
  const std::int64_t width = block.columns();
  while (begin < end) {
    const std::int64_t row = begin / width, column = begin % width;
    // Whole rows from here if it is the start of one that ends before `end`, else the rest of this row.
    const bool at_start = column == 0 && end - begin >= width;
    const std::int64_t rows = at_start ? (end - begin) / width : 1;
    const std::int64_t columns = at_start ? width : std::min(width - column, end - begin);
    result.push_back({block.row_begin + row, block.row_begin + row + rows, block.column_begin + column,
                      block.column_begin + column + columns});
    begin += rows * columns;
  }
  return result;
}

void expect_valid(const CheckpointPiece& piece) {
  const Rectangle all = whole(piece.global_shape);
  LLAMA3D_EXPECT(piece.dataset.size() > 1 && piece.dataset.front() == '/' &&
                     piece.dataset.find('%') == std::string::npos,
                 "dataset name '{}'", piece.dataset);
  for (const Rectangle& r : piece.rectangles) {
    LLAMA3D_EXPECT(r.empty() || intersection(r, all) == r, "rectangle {} of {} lies outside {}", to_string(r),
                   piece.dataset, to_string(all));
  }
}

}  // namespace llama3d
