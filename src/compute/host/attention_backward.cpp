// Attention, backward: probabilities are computed again from the scores and the forward's log-sum-exp.
//   P = exp(S - lse), dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(dO O)), dQ = scale dS K, dK = scale dS^T
//   Q

#include <limits>

#include "compute/host/attention_tiles.hpp"
#include "compute/host/checks.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"
#include "compute/host/vector_math.hpp"

namespace llama3d::host {
namespace {

/// One thread's tiles. Columns c = (group, query) throughout; queries carry the scale.
struct BackwardTiles {
  float *queries, *queries_across, *douts, *douts_across, *dqueries;
  float *keys, *values, *probabilities, *dscores, *lse, *projection;
  float *dkeys, *dvalues;

  /// For documents of up to `rows` rows.
  BackwardTiles(Scratch& scratch, const AttentionSizes& sizes, std::int64_t rows) {
    const std::int64_t columns = sizes.columns();
    const auto take = [&](std::int64_t n) { return scratch.take(n, "attention_backward"); };
    queries = take(columns * sizes.width);        // (c, width)
    queries_across = take(sizes.size * columns);  // (size, c)
    douts = take(columns * sizes.width);          // (c, width)
    douts_across = take(sizes.size * columns);    // (size, c)
    dqueries = take(columns * sizes.width);       // (c, width)
    keys = take(tile_rows * sizes.width);         // (key, width)
    values = take(tile_rows * sizes.width);       // (key, width)
    probabilities = take(tile_rows * columns);    // (key, c)
    dscores = take(tile_rows * columns);          // (key, c)
    lse = take(columns);                          // (c), infinity in padding: probability 0
    projection = take(columns);                   // (c), dout . out
    dkeys = take(rows * sizes.width);             // (row of the document, width): the sum over its queries
    dvalues = take(rows * sizes.width);           // (row of the document, width)
  }
};

/// The tensors of a call as plain memory.
template <class T>
struct BackwardCall {
  const T *qkv, *out, *dout;
  const float* lse;
  T* dqkv;
  std::int64_t rows;
};

template <class T>
void load_queries(const AttentionSizes& sizes, const QueryBlock& block, std::int64_t head,
                  const BackwardCall<T>& call, const BackwardTiles& tiles) {
  const std::int64_t stride = block.stride(), columns = sizes.groups * stride, width = sizes.width;
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    const std::int64_t column = sizes.query_column(head, g), first = g * stride;
    const T* out = call.out + block.begin * sizes.out_stride + column;
    float* queries = tiles.queries + first * width;
    float* douts = tiles.douts + first * width;
    pack_rows(call.qkv + block.begin * sizes.row_stride + column, sizes.row_stride, block.rows, sizes.size,
              width, sizes.scale, queries);
    pack_rows(call.dout + block.begin * sizes.out_stride + column, sizes.out_stride, block.rows, sizes.size,
              width, 1, douts);
    std::fill(queries + block.rows * width, queries + stride * width, 0.0f);
    std::fill(douts + block.rows * width, douts + stride * width, 0.0f);
    transpose_rows(queries, block.rows, sizes.size, width, tiles.queries_across + first, columns);
    transpose_rows(douts, block.rows, sizes.size, width, tiles.douts_across + first, columns);
    for (std::int64_t i = 0; i < block.rows; ++i) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t d = 0; d < sizes.size; ++d)
        sum += douts[i * width + d] * widen(out[i * sizes.out_stride + d]);
      tiles.projection[first + i] = sum;
    }
    std::copy_n(call.lse + (head * sizes.groups + g) * call.rows + block.begin, block.rows,
                tiles.lse + first);
    std::fill(tiles.projection + first + block.rows, tiles.projection + first + stride, 0.0f);
    std::fill(tiles.lse + first + block.rows, tiles.lse + first + stride,
              std::numeric_limits<float>::infinity());
  }
}

/// probabilities and dscores of a tile; hidden pairs inside the strips get 0.
void differentiate(const AttentionSizes& sizes, const QueryBlock& block, const KeyTile& tile,
                   const BackwardTiles& tiles, std::int64_t columns) {
  for_each_strip(block, tile, sizes.groups, [&](auto key, auto keys, auto column, auto count) {
    const std::int64_t at = key * columns + column;
    tile_gemm(keys, count, sizes.size, {tiles.keys + key * sizes.width, sizes.width, 1},
              tiles.queries_across + column, columns, tiles.probabilities + at, columns, false);
    tile_gemm(keys, count, sizes.size, {tiles.values + key * sizes.width, sizes.width, 1},
              tiles.douts_across + column, columns, tiles.dscores + at, columns, false);
    const float* lse = tiles.lse + column;
    const float* projection = tiles.projection + column;
    for (std::int64_t j = 0; j < keys; ++j) {
      float* p = tiles.probabilities + at + j * columns;
      float* ds = tiles.dscores + at + j * columns;
#pragma omp simd
      for (std::int64_t c = 0; c < count; ++c) {
        p[c] = exponential(p[c] - lse[c]);
        ds[c] = p[c] * (ds[c] - projection[c]);
      }
      if (!tile.diagonal) continue;
      std::fill_n(p, j, 0.0f);
      std::fill_n(ds, j, 0.0f);
    }
  });
}

/// dkeys += dscores . queries, dvalues += probabilities . douts, dqueries (+)= dscores^T . keys.
void accumulate(const AttentionSizes& sizes, const QueryBlock& block, const KeyTile& tile,
                const BackwardTiles& tiles, std::int64_t columns, bool first) {
  const std::int64_t width = sizes.width, stride = block.stride();
  for_each_strip(block, tile, sizes.groups, [&](auto key, auto keys, auto column, auto count) {
    const std::int64_t at = key * columns + column, row = (tile.begin - block.document + key) * width;
    tile_gemm(keys, width, count, {tiles.dscores + at, columns, 1}, tiles.queries + column * width, width,
              tiles.dkeys + row, width, true);
    tile_gemm(keys, width, count, {tiles.probabilities + at, columns, 1}, tiles.douts + column * width, width,
              tiles.dvalues + row, width, true);
  });
  if (!tile.diagonal) {
    tile_gemm(columns, width, tile.rows, {tiles.dscores, 1, columns}, tiles.keys, width, tiles.dqueries,
              width, !first);
    return;
  }
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    for (std::int64_t q = 0; q < stride; q += tile_lanes) {
      const std::int64_t column = g * stride + q;
      tile_gemm(tile_lanes, width, std::min(tile.rows, q + tile_lanes), {tiles.dscores + column, 1, columns},
                tiles.keys, width, tiles.dqueries + column * width, width, !first);
    }
  }
}

template <class T>
void store_row(const float* in, float factor, T* out, std::int64_t n) {
#pragma omp simd
  for (std::int64_t d = 0; d < n; ++d) out[d] = narrow<T>(in[d] * factor);
}

template <class T>
void differentiate_block(const AttentionSizes& sizes, const QueryBlock& block, std::int64_t head,
                         const BackwardCall<T>& call, const BackwardTiles& tiles) {
  const std::int64_t stride = block.stride(), columns = sizes.groups * stride, width = sizes.width;
  load_queries(sizes, block, head, call, tiles);
  bool first = true;
  for_each_tile(block, [&](const KeyTile& tile) {
    const T* row = call.qkv + tile.begin * sizes.row_stride;
    pack_rows(row + sizes.key_column(head), sizes.row_stride, tile.rows, sizes.size, width, 1, tiles.keys);
    pack_rows(row + sizes.value_column(head), sizes.row_stride, tile.rows, sizes.size, width, 1,
              tiles.values);
    differentiate(sizes, block, tile, tiles, columns);
    accumulate(sizes, block, tile, tiles, columns, first);
    first = false;
  });
  for (std::int64_t g = 0; g < sizes.groups; ++g) {
    for (std::int64_t i = 0; i < block.rows; ++i) {
      store_row(tiles.dqueries + (g * stride + i) * width, sizes.scale,
                call.dqkv + (block.begin + i) * sizes.row_stride + sizes.query_column(head, g), sizes.size);
    }
  }
}

/// One document under one key-value head, whole: its dK and dV have no other contributor.
template <class T>
void differentiate_document(const AttentionSizes& sizes, std::int64_t begin, std::int64_t end,
                            std::int64_t head, const BackwardCall<T>& call, const BackwardTiles& tiles) {
  std::fill_n(tiles.dkeys, (end - begin) * sizes.width, 0.0f);
  std::fill_n(tiles.dvalues, (end - begin) * sizes.width, 0.0f);
  for (std::int64_t t = begin; t < end; t += tile_rows) {
    differentiate_block(sizes, {begin, t, std::min(tile_rows, end - t)}, head, call, tiles);
  }
  for (std::int64_t t = begin; t < end; ++t) {
    T* row = call.dqkv + t * sizes.row_stride;
    const std::int64_t from = (t - begin) * sizes.width;
    store_row(tiles.dkeys + from, 1, row + sizes.key_column(head), sizes.size);
    store_row(tiles.dvalues + from, 1, row + sizes.value_column(head), sizes.size);
  }
}

}  // namespace

std::int64_t attention_backward_scratch(const WorkspaceRequest& request, int threads) {
  Scratch count;
  const AttentionSizes sizes(request.attention);
  for (int t = 0; t < threads; ++t) BackwardTiles(count, sizes, request.tokens);
  return count.used();
}

void HostKernels::do_attention_backward(const Tensor& qkv, const DocumentRows& documents,
                                        const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                        const Tensor& dout, const Tensor& dqkv, Stream&) {
  expect_whole_documents(documents, qkv.rows());
  const std::int64_t rows = qkv.rows();
  const AttentionSizes sizes(shape);
  const std::int32_t* start = elements<std::int32_t>(documents.start);
  const std::int32_t* end = elements<std::int32_t>(documents.end);
  Scratch measure;
  BackwardTiles(measure, sizes, rows);
  float* memory = scratch().take(measure.used() * threads_, "attention_backward");
  const std::int64_t slabs = (rows + tile_rows - 1) / tile_rows;
  with_type(qkv.dtype(), [&]<class T>(T) {
    const BackwardCall<T> call{elements<T>(qkv),     elements<T>(out),  elements<T>(dout),
                               elements<float>(lse), elements<T>(dqkv), rows};
    // An item is the documents that begin in a slab of 64 rows, under one key-value head.
    parallel_items(threads_, slabs * sizes.kv_heads, [&](int thread, std::int64_t item) {
      Scratch own(memory + thread * measure.used(), measure.used());
      const BackwardTiles tiles(own, sizes, rows);
      const std::int64_t slab = item / sizes.kv_heads, head = item % sizes.kv_heads;
      const std::int64_t last = std::min(rows, (slab + 1) * tile_rows);
      for (std::int64_t t = slab * tile_rows; t < last; t = end[t]) {
        if (start[t] == t) differentiate_document(sizes, t, end[t], head, call, tiles);
      }
    });
  });
}

}  // namespace llama3d::host
