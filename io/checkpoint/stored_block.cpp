#include "io/checkpoint/stored_block.hpp"

#include <algorithm>

#include "io/posix/posix_file.hpp"

namespace llama3d::io {
namespace {

constexpr std::int64_t buffer_bytes = std::int64_t{8} << 20;

}  // namespace

std::byte* Target::at(std::int64_t row, std::int64_t column) const {
  const std::int64_t element =
      (row - rectangle.row_begin) * rectangle.columns() + (column - rectangle.column_begin);
  return data + element * static_cast<std::int64_t>(size_of(dtype));
}

void read_common_part(const StoredBlock& block, const Target& target, std::vector<std::byte>& buffer) {
  const Rectangle part = intersection(block.rectangle, target.rectangle);
  if (part.empty()) return;
  const auto element = static_cast<std::int64_t>(size_of(block.type));
  const std::int64_t pitch = block.rectangle.columns() * element, width = part.columns() * element;
  // Rows lie apart in the file when the part is narrower: then a stretch of rows is read with what lies
  // between them, unless that would be mostly waste.
  const bool by_row = width < pitch && (width >= 65536 || width * 16 < pitch);
  const std::int64_t rows_at_once = by_row ? 1 : std::max<std::int64_t>(1, buffer_bytes / pitch);
  const std::int64_t offset = block.offset + (part.row_begin - block.rectangle.row_begin) * pitch +
                              (part.column_begin - block.rectangle.column_begin) * element;
  const bool whole_rows = width == pitch && part.columns() == target.rectangle.columns();
  for (std::int64_t row = part.row_begin; row < part.row_end; row += rows_at_once) {
    const std::int64_t rows = std::min(rows_at_once, part.row_end - row);
    const auto bytes = static_cast<std::size_t>((rows - 1) * pitch + width);
    const std::int64_t place = offset + (row - part.row_begin) * pitch;
    if (whole_rows && block.type == stored_type(target.dtype)) {
      read_at(block.descriptor, target.at(row, part.column_begin), bytes, place);
      continue;
    }
    buffer.resize(bytes);
    read_at(block.descriptor, buffer.data(), bytes, place);
    for (std::int64_t r = 0; r < rows; ++r) {
      convert_elements(buffer.data() + r * pitch, block.type, target.at(row + r, part.column_begin),
                       target.dtype, static_cast<std::size_t>(part.columns()));
    }
  }
}

}  // namespace llama3d::io
