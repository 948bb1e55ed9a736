#pragma once
// GEMMs of matrices small enough to stay in cache: what attention does to its tiles. BLAS would repack
// both operands for each of them.

#include <cstdint>
#include <cstring>

namespace llama3d::host {

/// Columns of the right operand and of the result come in multiples of this many floats.
inline constexpr std::int64_t tile_lanes = 16;

constexpr std::int64_t padded(std::int64_t n) {
  return (n + tile_lanes - 1) / tile_lanes * tile_lanes;
}

/// The left operand: element (i, k) at data[i * row_stride + k * inner_stride], so a transpose costs nothing.
struct TileLeft {
  const float* data;
  std::int64_t row_stride, inner_stride;
};

namespace tile_detail {

#if defined(__AVX512F__)
inline constexpr int vector_floats = 16, block_rows = 8;
#elif defined(__AVX__)
inline constexpr int vector_floats = 8, block_rows = 4;
#else
inline constexpr int vector_floats = 4, block_rows = 4;
#endif
typedef float Vector __attribute__((vector_size(vector_floats * sizeof(float))));

[[gnu::always_inline]] inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

/// R rows by V vectors of the result, held in registers over the whole inner extent.
template <int R, int V>
inline void product_block(std::int64_t inner, TileLeft a, const float* b, std::int64_t b_stride, float* c,
                          std::int64_t c_stride, bool accumulate) {
  Vector sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v)
      sum[r][v] = accumulate ? load(c + r * c_stride + v * vector_floats) : Vector{};
  }
  for (std::int64_t k = 0; k < inner; ++k) {
    Vector right[V];
    for (int v = 0; v < V; ++v) right[v] = load(b + k * b_stride + v * vector_floats);
    for (int r = 0; r < R; ++r) {
      const float left = a.data[r * a.row_stride + k * a.inner_stride];
      for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) std::memcpy(c + r * c_stride + v * vector_floats, &sum[r][v], sizeof(Vector));
  }
}

/// All rows of V vectors of columns: full blocks, then halves of what is left.
template <int V, int R = block_rows>
inline void product_strip(std::int64_t m, std::int64_t inner, TileLeft a, const float* b,
                          std::int64_t b_stride, float* c, std::int64_t c_stride, bool accumulate) {
  std::int64_t row = 0;
  for (; row + R <= m; row += R) {
    product_block<R, V>(inner, {a.data + row * a.row_stride, a.row_stride, a.inner_stride}, b, b_stride,
                        c + row * c_stride, c_stride, accumulate);
  }
  if constexpr (R > 1) {
    if (row < m) {
      product_strip<V, R / 2>(m - row, inner, {a.data + row * a.row_stride, a.row_stride, a.inner_stride}, b,
                              b_stride, c + row * c_stride, c_stride, accumulate);
    }
  }
}

}  // namespace tile_detail

/// c = a b, or c += a b.  a: (m, inner), b: (inner, n), c: (m, n), n a multiple of tile_lanes.
inline void tile_gemm(std::int64_t m, std::int64_t n, std::int64_t inner, TileLeft a, const float* b,
                      std::int64_t b_stride, float* c, std::int64_t c_stride, bool accumulate) {
  using tile_detail::vector_floats;
  std::int64_t column = 0;
  for (; column + 2 * vector_floats <= n; column += 2 * vector_floats) {
    tile_detail::product_strip<2>(m, inner, a, b + column, b_stride, c + column, c_stride, accumulate);
  }
  for (; column < n; column += vector_floats) {
    tile_detail::product_strip<1>(m, inner, a, b + column, b_stride, c + column, c_stride, accumulate);
  }
}

}  // namespace llama3d::host
