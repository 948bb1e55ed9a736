// Keys and values kept from earlier calls, and attention to them: for inference.

#include <algorithm>
#include <cmath>
#include <limits>

#include "compute/host/checks.hpp"
#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"
#include "compute/host/vector_math.hpp"

namespace llama3d::host {
namespace {

/// Entries whose scores are computed before their values are added.
constexpr std::int64_t tile_entries = 64;

/// The query heads of one key-value head, of one row.
struct CachedTiles {
  float *queries, *sums, *scores, *largest, *total;

  CachedTiles(Scratch& scratch, const AttentionShape& shape) {
    const std::int64_t groups = shape.key_value_heads > 0 ? shape.query_heads / shape.key_value_heads : 0;
    const auto take = [&](std::int64_t n) { return scratch.take(n, "attention_cached"); };
    queries = take(groups * shape.head_dim);  // (group, size), scaled
    sums = take(groups * shape.head_dim);     // (group, size): sum of exp(score - largest) value
    scores = take(tile_entries);
    largest = take(groups);
    total = take(groups);  // sum of exp(score - largest)
  }
};

template <class T>
float dot(const float* a, const T* b, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * widen(b[i]);
  return sum;
}

/// Takes `count` entries, `stride` apart, into one query head's running softmax.
template <class T>
void add_entries(const CachedTiles& tiles, std::int64_t group, std::int64_t size, const T* keys,
                 const T* values, std::int64_t stride, std::int64_t count) {
  float largest = tiles.largest[group];
  for (std::int64_t j = 0; j < count; ++j) {
    tiles.scores[j] = dot(tiles.queries + group * size, keys + j * stride, size);
    largest = tiles.scores[j] > largest ? tiles.scores[j] : largest;
  }
  float* sum = tiles.sums + group * size;
  const float left = exponential(tiles.largest[group] - largest);
#pragma omp simd
  for (std::int64_t d = 0; d < size; ++d) sum[d] *= left;
  float total = tiles.total[group] * left;
  for (std::int64_t j = 0; j < count; ++j) {
    const float weight = exponential(tiles.scores[j] - largest);
    const T* value = values + j * stride;
    total += weight;
#pragma omp simd
    for (std::int64_t d = 0; d < size; ++d) sum[d] += weight * widen(value[d]);
  }
  tiles.largest[group] = largest;
  tiles.total[group] = total;
}

/// `queries` and `out`: the first of the groups' heads; `entry`: the key of the slot's first entry, whose
/// value lies `width` behind it.
template <class T>
void attend(const CachedTiles& tiles, std::int64_t groups, std::int64_t size, const T* queries,
            const T* entry, std::int64_t width, std::int64_t entries, T* out) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (std::int64_t i = 0; i < groups * size; ++i) tiles.queries[i] = widen(queries[i]) * scale;
  std::fill_n(tiles.sums, groups * size, 0.0f);
  std::fill_n(tiles.total, groups, 0.0f);
  std::fill_n(tiles.largest, groups, -std::numeric_limits<float>::infinity());
  for (std::int64_t first = 0; first < entries; first += tile_entries) {
    const T* keys = entry + first * 2 * width;
    for (std::int64_t g = 0; g < groups; ++g)
      add_entries(tiles, g, size, keys, keys + width, 2 * width, std::min(tile_entries, entries - first));
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    const float inverse = 1.0f / tiles.total[g];
    for (std::int64_t d = 0; d < size; ++d) out[g * size + d] = narrow<T>(tiles.sums[g * size + d] * inverse);
  }
}

}  // namespace

std::int64_t attention_cached_scratch(const WorkspaceRequest& request, int threads) {
  Scratch count;
  for (int t = 0; t < threads; ++t) CachedTiles(count, request.attention);
  return count.used();
}

void HostKernels::do_cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                                  const Tensor& cache, Stream&) {
  expect_cached(rows, cache);
  const std::int64_t capacity = cache.shape()[1], width = cache.shape()[2];
  const auto *slot = elements<std::int32_t>(rows.slot), *position = elements<std::int32_t>(rows.position);
  with_type(qkv.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, qkv.rows(), rows_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t)
        if (slot[t] >= 0)
          std::copy_n(elements<T>(qkv) + t * shape.fused_columns() + shape.output_columns(), width,
                      elements<T>(cache) + (slot[t] * capacity + position[t]) * width);
    });
  });
}

void HostKernels::do_attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                                      const Tensor& cache, const Tensor& out, Stream&) {
  expect_cached(rows, cache);
  const std::int64_t size = shape.head_dim, kv_heads = shape.key_value_heads,
                     groups = shape.query_heads / kv_heads;
  const std::int64_t slot_elements = cache.shape()[1] * cache.shape()[2];
  const auto *slot = elements<std::int32_t>(rows.slot), *position = elements<std::int32_t>(rows.position);
  Scratch measure;
  CachedTiles(measure, shape);
  float* memory = scratch().take(measure.used() * threads_, "attention_cached");
  with_type(qkv.dtype(), [&]<class T>(T) {
    parallel_items(threads_, qkv.rows() * kv_heads, [&](int thread, std::int64_t item) {
      const std::int64_t t = item / kv_heads, head = item % kv_heads;
      T* to = elements<T>(out) + t * shape.output_columns() + head * groups * size;
      if (slot[t] < 0) {
        std::fill_n(to, groups * size, T(0.0f));
        return;
      }
      Scratch own(memory + thread * measure.used(), measure.used());
      attend(CachedTiles(own, shape), groups, size,
             elements<T>(qkv) + t * shape.fused_columns() + head * groups * size,
             elements<T>(cache) + slot[t] * slot_elements + head * size, kv_heads * size, position[t] + 1,
             to);
    });
  });
}

}  // namespace llama3d::host
