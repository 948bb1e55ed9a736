#pragma once
// Rectangles read from files that hold a larger one. For the files of this module.

#include <cstdint>
#include <vector>

#include "io/checkpoint/checkpoint_piece.hpp"
#include "io/checkpoint/convert.hpp"

namespace llama3d::io {

/// A rectangle whose elements lie row-major and without gaps in a file.
struct StoredBlock {
  int descriptor = -1;
  std::int64_t offset = 0;  ///< bytes, of its first element
  Rectangle rectangle;
  StoredType type = StoredType::fp32;
};

/// Where a rectangle's elements go: a dense row-major array.
struct Target {
  Rectangle rectangle;
  std::byte* data = nullptr;
  DType dtype = DType::fp32;

  std::byte* at(std::int64_t row, std::int64_t column) const;
};

/// Copies the common part, converted, and reads little besides it. `buffer` may be kept for the next call; it
/// grows to some MiB. Throws IoError.
void read_common_part(const StoredBlock& block, const Target& target, std::vector<std::byte>& buffer);

}  // namespace llama3d::io
