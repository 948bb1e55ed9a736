// Attention, forward: softmax over tiles of keys with a running maximum, as Dao et al., "FlashAttention",
// 2022.

#include <limits>

#include "compute/host/attention_tiles.hpp"
#include "compute/host/checks.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"
#include "compute/host/vector_math.hpp"

namespace llama3d::host {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// One thread's tiles. Columns c = (group, query) throughout.
struct ForwardTiles {
  float *queries, *queries_across, *keys, *values, *scores, *sums;
  float *largest, *previous, *total;

  ForwardTiles(Scratch& scratch, const AttentionSizes& sizes) {
    const std::int64_t columns = sizes.columns();
    const auto take = [&](std::int64_t n) { return scratch.take(n, "attention_forward"); };
    queries = take(tile_rows * sizes.width);      // (query, width) of one group
    queries_across = take(sizes.size * columns);  // (size, c)
    keys = take(tile_rows * sizes.width);         // (key, width)
    values = take(tile_rows * sizes.width);       // (key, width)
    scores = take(tile_rows * columns);           // (key, c)
    sums = take(columns * sizes.width);           // (c, width): sum of exp(score - largest) value
    largest = take(columns);                      // (c)
    previous = take(columns);  // (c): largest before this tile, then what is left of the sums
    total = take(columns);     // (c): sum of exp(score - largest)
  }
};

/// scores = keys . queries, hidden ones -infinity.
void score(const AttentionSizes& sizes, const QueryBlock& block, const KeyTile& tile,
           const ForwardTiles& tiles, std::int64_t columns) {
  for_each_strip(block, tile, sizes.groups, [&](auto key, auto keys, auto column, auto count) {
    tile_gemm(keys, count, sizes.size, {tiles.keys + key * sizes.width, sizes.width, 1},
              tiles.queries_across + column, columns, tiles.scores + key * columns + column, columns, false);
    if (!tile.diagonal) return;
    for (std::int64_t j = 0; j < keys; ++j)
      std::fill_n(tiles.scores + (key + j) * columns + column, j, -infinity);
  });
}

/// Raises `largest` to cover the tile and turns scores into exp(score - largest), `total` and `sums` with
/// them.
void exponentiate(const AttentionSizes& sizes, const QueryBlock& block, const KeyTile& tile,
                  const ForwardTiles& tiles, std::int64_t columns) {
  std::copy_n(tiles.largest, columns, tiles.previous);
  for_each_strip(block, tile, sizes.groups, [&](auto key, auto keys, auto column, auto count) {
    float* top = tiles.largest + column;
    for (std::int64_t j = key; j < key + keys; ++j) {
      const float* row = tiles.scores + j * columns + column;
#pragma omp simd
      for (std::int64_t c = 0; c < count; ++c) top[c] = row[c] > top[c] ? row[c] : top[c];
    }
  });
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c) {
    tiles.previous[c] = exponential(tiles.previous[c] - tiles.largest[c]);
    tiles.total[c] *= tiles.previous[c];
  }
  for_each_strip(block, tile, sizes.groups, [&](auto key, auto keys, auto column, auto count) {
    const float* top = tiles.largest + column;
    float* total = tiles.total + column;
    for (std::int64_t j = key; j < key + keys; ++j) {
      float* row = tiles.scores + j * columns + column;
#pragma omp simd
      for (std::int64_t c = 0; c < count; ++c) {
        row[c] = exponential(row[c] - top[c]);
        total[c] += row[c];
      }
    }
  });
}

/// sums = what is left of them + exp(scores)^T . values.
void accumulate(const AttentionSizes& sizes, const QueryBlock& block, const KeyTile& tile,
                const ForwardTiles& tiles, std::int64_t columns, bool first) {
  const std::int64_t width = sizes.width;
  if (!first) {
    for (std::int64_t c = 0; c < columns; ++c) {
      float* sum = tiles.sums + c * width;
      const float left = tiles.previous[c];
#pragma omp simd
      for (std::int64_t d = 0; d < width; ++d) sum[d] *= left;
    }
  }
  if (!tile.diagonal) {
    tile_gemm(columns, width, tile.rows, {tiles.scores, 1, columns}, tiles.values, width, tiles.sums, width,
              !first);
    return;
  }
  // Queries [q, q + 16) see the diagonal's keys below q + 16; the hidden ones among those weigh 0.
  const std::int64_t stride = block.stride();
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    for (std::int64_t q = 0; q < stride; q += tile_lanes) {
      const std::int64_t column = g * stride + q;
      tile_gemm(tile_lanes, width, std::min(tile.rows, q + tile_lanes), {tiles.scores + column, 1, columns},
                tiles.values, width, tiles.sums + column * width, width, !first);
    }
  }
}

template <class T>
void attend_block(const AttentionSizes& sizes, const QueryBlock& block, std::int64_t head, const T* qkv,
                  T* out, float* lse, std::int64_t rows, const ForwardTiles& tiles) {
  const std::int64_t stride = block.stride(), columns = sizes.groups * stride;
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    pack_rows(qkv + block.begin * sizes.row_stride + sizes.query_column(head, g), sizes.row_stride,
              block.rows, sizes.size, sizes.width, sizes.scale, tiles.queries);
    transpose_rows(tiles.queries, block.rows, sizes.size, sizes.width, tiles.queries_across + g * stride,
                   columns);
  }
  std::fill_n(tiles.largest, columns, -infinity);
  std::fill_n(tiles.total, columns, 0.0f);
  bool first = true;
  for_each_tile(block, [&](const KeyTile& tile) {
    const T* row = qkv + tile.begin * sizes.row_stride;
    pack_rows(row + sizes.key_column(head), sizes.row_stride, tile.rows, sizes.size, sizes.width, 1,
              tiles.keys);
    pack_rows(row + sizes.value_column(head), sizes.row_stride, tile.rows, sizes.size, sizes.width, 1,
              tiles.values);
    score(sizes, block, tile, tiles, columns);
    exponentiate(sizes, block, tile, tiles, columns);
    accumulate(sizes, block, tile, tiles, columns, first);
    first = false;
  });
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t c = g * stride + i;
      const float inverse = 1.0f / tiles.total[c];
      T* to = out + (block.begin + i) * sizes.out_stride + sizes.query_column(head, g);
      const float* sum = tiles.sums + c * sizes.width;
#pragma omp simd
      for (std::int64_t d = 0; d < sizes.size; ++d) to[d] = narrow<T>(sum[d] * inverse);
      lse[(head * sizes.groups + g) * rows + block.begin + i] = tiles.largest[c] + std::log(tiles.total[c]);
    }
  }
}

}  // namespace

std::int64_t attention_forward_scratch(const WorkspaceRequest& request, int threads) {
  Scratch count;
  const AttentionSizes sizes(request.attention);
  for (int t = 0; t < threads; ++t) ForwardTiles(count, sizes);
  return count.used();
}

void HostKernels::do_attention_forward(const Tensor& qkv, const DocumentRows& documents,
                                       const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                       Stream&) {
  expect_whole_documents(documents, qkv.rows());
  const AttentionSizes sizes(shape);
  const std::int64_t rows = qkv.rows();
  const std::int32_t* start = elements<std::int32_t>(documents.start);
  const std::int32_t* end = elements<std::int32_t>(documents.end);
  Scratch measure;
  ForwardTiles(measure, sizes);
  float* memory = scratch().take(measure.used() * threads_, "attention_forward");
  const std::int64_t slabs = (rows + tile_rows - 1) / tile_rows;
  with_type(qkv.dtype(), [&]<class T>(T) {
    // An item is a slab of 64 rows and a key-value head; late slabs of long documents cost most and start
    // first.
    parallel_items(threads_, slabs * sizes.kv_heads, [&](int thread, std::int64_t item) {
      Scratch own(memory + thread * measure.used(), measure.used());
      const ForwardTiles tiles(own, sizes);
      const std::int64_t slab = slabs - 1 - item / sizes.kv_heads, head = item % sizes.kv_heads;
      const std::int64_t last = std::min(rows, (slab + 1) * tile_rows);
      for (std::int64_t t = slab * tile_rows; t < last;) {
        const QueryBlock block{start[t], t, std::min<std::int64_t>(last, end[t]) - t};
        attend_block(sizes, block, head, elements<T>(qkv), elements<T>(out), elements<float>(lse), rows,
                     tiles);
        t += block.rows;
      }
    });
  });
}

}  // namespace llama3d::host
