#include "io/verify.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "io/metrics/metrics_format.hpp"
#include "io/tokens/token_format.hpp"

namespace llama3d::io {
namespace {

std::string bytes_text(std::int64_t bytes) {
  return format_bytes(static_cast<std::size_t>(bytes));
}

/// Rows that say "never written" are what a kill leaves of the row it interrupted.
std::int64_t count_unwritten(const TableDescriptor& table, const std::vector<std::byte>& rows) {
  std::int64_t unwritten = 0;
  for (std::size_t at = 0; at < rows.size(); at += table.row_bytes) {
    std::int64_t step = 0;
    std::memcpy(&step, rows.data() + at + table.fields.front().offset, sizeof step);
    unwritten += step < 0;
  }
  return unwritten;
}

}  // namespace

std::string verify_checkpoint(const CheckpointReader& reader) {
  const std::int64_t bytes = reader.verify();
  const auto without = reader.verify_headers();
  if (without.empty())
    return fmt::format("checksums: all right (every byte of {} rank files and checkpoint.h5; tensors: {})\n",
                       reader.files(), bytes_text(bytes));
  return fmt::format(
      "checksums of tensors and manifest: all right ({})\n"
      "not covered by a checksum: attributes, names and mappings that other programs read from {}\n",
      bytes_text(bytes), fmt::join(without, ", "));
}

std::string verify_tokens(const TokenFileReader& reader) {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> mask;
  std::int64_t targets = 0;
  for (std::int64_t begin = 0; begin < reader.tokens(); begin += std::ssize(tokens)) {
    tokens.resize(static_cast<std::size_t>(std::min<std::int64_t>(token_chunk, reader.tokens() - begin)));
    mask.resize(tokens.size());
    reader.read(begin, tokens);
    reader.read_loss_mask(begin, mask);
    targets += std::count(mask.begin(), mask.end(), 1);
  }
  const std::string counts = fmt::format("{} tokens, {} of them targets", reader.tokens(), targets);
  const auto& without = reader.without_checksums();
  const std::string ids = reader.info().vocabulary_size > 0
                              ? fmt::format("all ids below {}", reader.info().vocabulary_size)
                              : "ids are not compared with a vocabulary, whose size is unknown";
  if (without.empty())
    return fmt::format(
        "checksums of tokens, documents and loss mask: all right ({})\nattributes have no checksum\n",
        counts);
  return fmt::format("no checksums of {}: read {}; {}; documents in order\n", fmt::join(without, ", "),
                     counts, ids);
}

std::string verify_metrics(hid_t file) {
  std::int64_t all = 0, unwritten = 0;
  for (const TableDescriptor& table : metrics_tables()) {
    if (!table.in_every_file && !has_link(file, table.name)) continue;
    const auto dataset = open_dataset(file, table.name);
    const auto type = row_type(table);
    const hsize_t rows = extent_of(dataset.get()).at(0), block = 4096;
    std::vector<std::byte> buffer;
    for (hsize_t begin = 0; begin < rows; begin += block) {
      const hsize_t count = std::min(block, rows - begin);
      buffer.resize(count * table.row_bytes);
      read_range(dataset.get(), type.get(), begin, count, buffer.data());
      unwritten += count_unwritten(table, buffer);
    }
    all += static_cast<std::int64_t>(rows);
  }
  return fmt::format(
      "no checksums: metrics files have none; all {} rows can be read, {} of them never written\n", all,
      unwritten);
}

std::string verify_safetensors(const SafetensorsReader& reader) {
  return fmt::format("no checksums: safetensors have none; names, shapes and places fit the files ({})\n",
                     bytes_text(reader.bytes()));
}

}  // namespace llama3d::io
