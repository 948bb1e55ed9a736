#pragma once
// What the two directions of attention share: how rows are cut into tiles, and how tiles lie in memory.
//
// A document's rows are cut into blocks of up to 64 queries. All G query heads that share a key-value head
// are worked on together, as G groups of `stride` columns (the block's rows, padded to whole vectors): scores
// are kept transposed, keys down and queries across, so that softmax runs down the columns, one query a lane,
// and never across lanes. Keys are visited in tiles of up to 64: those before the block whole, the block's
// own rows last, as the diagonal tile, of which only the strips that somebody sees are computed.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "compute/host/elements.hpp"
#include "compute/host/tile_gemm.hpp"
#include "compute/host/workspace.hpp"

namespace llama3d::host {

inline constexpr std::int64_t tile_rows = 64;

/// Extents of one attention call.
struct AttentionSizes {
  std::int64_t kv_heads, groups, size, row_stride, out_stride;
  std::int64_t width;  ///< head size padded to whole vectors
  float scale;

  explicit AttentionSizes(const AttentionShape& shape)
      : kv_heads(shape.key_value_heads),
        groups(shape.key_value_heads > 0 ? shape.query_heads / shape.key_value_heads : 0),
        size(shape.head_dim),
        row_stride(shape.fused_columns()),
        out_stride(shape.output_columns()),
        width(padded(shape.head_dim)),
        scale(1.0f / std::sqrt(static_cast<float>(std::max<std::int64_t>(1, shape.head_dim)))) {}

  /// Most columns of a score tile.
  std::int64_t columns() const { return groups * tile_rows; }
  /// First column of a head in a fused row.
  std::int64_t query_column(std::int64_t kv_head, std::int64_t group) const {
    return (kv_head * groups + group) * size;
  }
  std::int64_t key_column(std::int64_t kv_head) const { return (kv_heads * groups + kv_head) * size; }
  std::int64_t value_column(std::int64_t kv_head) const { return (kv_heads * (groups + 1) + kv_head) * size; }
};

/// Queries [begin, begin + rows) of a document that starts at `document`.
struct QueryBlock {
  std::int64_t document, begin, rows;
  std::int64_t stride() const { return padded(rows); }
};

/// Keys [begin, begin + rows); the diagonal tile's keys are the block's own rows.
struct KeyTile {
  std::int64_t begin, rows;
  bool diagonal;
};

/// Calls f(tile) for each tile of keys that the block sees, in order.
template <class F>
void for_each_tile(const QueryBlock& block, F&& f) {
  for (std::int64_t key = block.document; key < block.begin; key += tile_rows) {
    f(KeyTile{key, std::min(tile_rows, block.begin - key), false});
  }
  f(KeyTile{block.begin, block.rows, true});
}

/// Calls f(first_key, keys, first_column, columns) for rectangles of the score tile, in tile coordinates,
/// that together hold every visible score; on the diagonal some hidden ones are in them too.
template <class F>
void for_each_strip(const QueryBlock& block, const KeyTile& tile, std::int64_t groups, F&& f) {
  const std::int64_t stride = block.stride();
  if (!tile.diagonal) return f(std::int64_t{0}, tile.rows, std::int64_t{0}, groups * stride);
  for (std::int64_t key = 0; key < tile.rows; key += tile_lanes) {
    const std::int64_t keys = std::min(tile_lanes, tile.rows - key);
    for (std::int64_t g = 0; g < groups; ++g) f(key, keys, g * stride + key, stride - key);
  }
}

/// Rows of a head as they lie, widened and padded with zeros to `width` columns: out (rows, width).
template <class T>
void pack_rows(const T* in, std::int64_t in_stride, std::int64_t rows, std::int64_t size, std::int64_t width,
               float factor, float* out) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* from = in + r * in_stride;
    float* to = out + r * width;
    // The next head's part of this row, which the same thread often needs next; rows are far apart.
    __builtin_prefetch(from + size);
#pragma omp simd
    for (std::int64_t d = 0; d < size; ++d) to[d] = widen(from[d]) * factor;
    for (std::int64_t d = size; d < width; ++d) to[d] = 0;
  }
}

/// The transpose of packed rows, into columns [0, padded(rows)) of out, (size, out_stride); padding is zero.
inline void transpose_rows(const float* in, std::int64_t rows, std::int64_t size, std::int64_t width,
                           float* out, std::int64_t out_stride) {
  const std::int64_t stride = padded(rows);
  for (std::int64_t first = 0; first < size; first += tile_lanes) {
    const std::int64_t last = std::min(size, first + tile_lanes);
    for (std::int64_t r = 0; r < stride; ++r) {
      for (std::int64_t d = first; d < last; ++d)
        out[d * out_stride + r] = r < rows ? in[r * width + d] : 0.0f;
    }
  }
}

}  // namespace llama3d::host
