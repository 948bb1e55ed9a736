// Attention backward on tensor cores.
//
// A block owns 128 key rows of one key-value head and keeps the sums of their gradients in registers while it
// walks, for each query head of the group, the tiles of 64 or 128 query rows from the diagonal to the end of
// the youngest document. Of each tile it recomputes the softmax weights P, forms
//   dP = dO V^T,  dS = P (dP - delta),  dV += P^T dO,  dK += dS^T Q,  dQ += dS K,
// and adds dQ to an fp32 accumulator in global memory, in the order of the fragments so that the additions
// are whole 16-byte pieces. P and dS change owners through shared memory. The next tile's Q and dO are on
// their way meanwhile. The blocks with most work start first.

#include "cuda/attention/attention_backward.cuh"
#include "cuda/attention/attention_kernels.hpp"
#include "cuda/attention/attention_softmax.cuh"
#include "cuda/attention/sm80/mma.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int key_rows = 128;
constexpr int threads = 256;
/// Query rows of a tile: as many as registers and shared memory hold.
template <int D>
inline constexpr int query_rows = D == 64 ? 128 : 64;
/// Tiles of 16 queries in a warp's part of the scores.
template <int D>
inline constexpr int query_tiles = query_rows<D> / 32;

/// Shared memory of a block: offsets in bytes.
template <int D>
struct Layout {
  static constexpr int k = 0;
  static constexpr int v = k + key_rows * D * 2;
  static constexpr int q = v + key_rows * D * 2;  ///< two stages
  static constexpr int dout = q + 2 * query_rows<D> * D * 2;
  static constexpr int p = dout + 2 * query_rows<D> * D * 2;
  static constexpr int ds = p + query_rows<D> * key_rows * 2;
  static constexpr int lse = ds + query_rows<D> * key_rows * 2;  ///< two stages of lse, then two of delta
  static constexpr int bytes = lse + 4 * query_rows<D> * 4;
};

template <int M, int N>
__device__ __forceinline__ void clear(float (&tile)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) tile[m][n][i] = 0;
}

/// What a warp computes. The eight warps are 2 x 4 over the scores, 4 x 2 over dK and dV, and over dQ as its
/// tiles of 32 x 32 allow.
template <int D>
struct WarpPlace {
  int lane = threadIdx.x % 32;
  int query = threadIdx.x / 32 % 2 * (query_rows<D> / 2);  ///< first row of its scores
  int key = threadIdx.x / 64 * 32;              ///< first column of its scores, first row of its dK and dV
  int column = threadIdx.x / 32 % 2 * (D / 2);  ///< first column of its dK and dV
  int dq_query = threadIdx.x / 32 % (query_rows<D> / 32) * 32;
  int dq_column = threadIdx.x / 32 / (query_rows<D> / 32) * 32;
};

/// c (a warp's queries x 32 keys) = rows of a times rows of b, over D.
template <int D>
__device__ __forceinline__ void mma_rows(float (&c)[query_tiles<D>][4][4], const SharedTile<D>& a,
                                         const SharedTile<D>& b, const WarpPlace<D>& place) {
  clear(c);
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    std::uint32_t left[query_tiles<D>][4];
#pragma unroll
    for (int m = 0; m < query_tiles<D>; ++m) a.load_a(left[m], place.query + m * 16, d);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      std::uint32_t right[4];
      b.load_b(right, place.key + n * 16, d);
#pragma unroll
      for (int m = 0; m < query_tiles<D>; ++m) {
        mma_16x8x16(c[m][2 * n], left[m], right[0], right[1]);
        mma_16x8x16(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// Scores become weights, 0 for hidden pairs.
template <int D>
__device__ __forceinline__ void exponentiate(float (&scores)[query_tiles<D>][4][4],
                                             const BackwardArguments& a, const WarpPlace<D>& place,
                                             const float* lse, int first_query, int first_key, bool masked) {
  const float scale_log2 = a.scale * log2_e;
#pragma unroll
  for (int m = 0; m < query_tiles<D>; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int local = place.query + m * 16 + r * 8 + place.lane / 4, row = first_query + local;
      const float shift = lse[local] * log2_e;
      const int start = masked ? (row < a.rows ? a.start[row] : row + 1) : 0;
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], scale_log2, -shift));
          const int key = first_key + place.key + n * 8 + place.lane % 4 * 2 + i % 2;
          if (masked && (key > row || key < start)) scores[m][n][i] = 0;
        }
    }
}

/// Weights and d(weights) become d(scores), in place of the latter.
template <int D>
__device__ __forceinline__ void differentiate(const float (&weights)[query_tiles<D>][4][4],
                                              float (&d)[query_tiles<D>][4][4], const WarpPlace<D>& place,
                                              const float* delta) {
#pragma unroll
  for (int m = 0; m < query_tiles<D>; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = delta[place.query + m * 16 + r * 8 + place.lane / 4];
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) d[m][n][i] = weights[m][n][i] * (d[m][n][i] - sum);
    }
}

/// Writes a warp's part of a matrix of queries by keys, rounded.
template <int D>
__device__ __forceinline__ void store_part(const float (&part)[query_tiles<D>][4][4],
                                           const SharedTile<key_rows>& to, const WarpPlace<D>& place) {
#pragma unroll
  for (int m = 0; m < query_tiles<D>; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to.address(place.query + m * 16 + r * 8 + place.lane / 4,
                                                                place.key + n * 8 + place.lane % 4 * 2)),
                     "r"(pack(part[m][n][2 * r], part[m][n][2 * r + 1])));
}

/// sum (32 keys x D/2 columns) += transposed part of `weights` (queries x 128) times `rows` (queries x D).
template <int D>
__device__ __forceinline__ void add_transposed(float (&sum)[2][D / 16][4],
                                               const SharedTile<key_rows>& weights, const SharedTile<D>& rows,
                                               const WarpPlace<D>& place) {
#pragma unroll
  for (int query = 0; query < query_rows<D>; query += 16) {
    std::uint32_t left[2][4];
    weights.load_a_transposed(left[0], query, place.key);
    weights.load_a_transposed(left[1], query, place.key + 16);
#pragma unroll
    for (int n = 0; n < D / 32; ++n) {
      std::uint32_t right[4];
      rows.load_b_transposed(right, query, place.column + n * 16);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_16x8x16(sum[m][2 * n], left[m], right[0], right[1]);
        mma_16x8x16(sum[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

/// dQ of a warp's 32 queries and 32 columns, added to the accumulator.
template <int D>
__device__ __forceinline__ void add_query_gradient(const BackwardArguments& a, const SharedTile<key_rows>& ds,
                                                   const SharedTile<D>& k, const WarpPlace<D>& place,
                                                   int head, int tile) {
  float dq[2][4][4];
  clear(dq);
#pragma unroll
  for (int key = 0; key < key_rows; key += 16) {
    std::uint32_t left[2][4];
    ds.load_a(left[0], place.dq_query, key);
    ds.load_a(left[1], place.dq_query + 16, key);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      std::uint32_t right[4];
      k.load_b_transposed(right, key, place.dq_column + n * 16);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_16x8x16(dq[m][2 * n], left[m], right[0], right[1]);
        mma_16x8x16(dq[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
      add_to(a.dq +
                 a.dq_offset<D>(head, (tile * query_rows<D> + place.dq_query) / 16 + m,
                                place.dq_column / 8 + n) +
                 place.lane * 4,
             dq[m][n]);
}

/// Writes a warp's part of dK or dV: 32 rows by half of the columns.
template <int D>
__device__ __forceinline__ void write_gradient(const float (&sum)[2][D / 16][4], Bf16* matrix,
                                               std::int64_t stride, int first_key, int rows,
                                               const WarpPlace<D>& place, float factor) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_key + place.key + m * 16 + r * 8 + place.lane / 4;
      if (row >= rows) continue;
      Bf16* to = matrix + row * stride + place.column + place.lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < D / 16; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack(sum[m][n][2 * r] * factor, sum[m][n][2 * r + 1] * factor);
    }
}

template <int D>
__global__ __launch_bounds__(threads, 1) void attention_backward_kernel(const BackwardArguments a) {
  extern __shared__ __align__(1024) std::byte shared[];
  const std::uint32_t base = shared_address(shared);
  const SharedTile<D> k(base + Layout<D>::k), v(base + Layout<D>::v);
  const SharedTile<key_rows> p(base + Layout<D>::p), ds(base + Layout<D>::ds);
  const float* rows_of_lse = reinterpret_cast<const float*>(shared + Layout<D>::lse);
  const WarpPlace<D> place;

  const int kv_head = blockIdx.x, first_key = blockIdx.y * key_rows;
  const int group = a.query_heads / a.key_value_heads;
  const std::int64_t stride = a.stride(D);
  const int first_tile = first_key / query_rows<D>;
  const int last_key = min(first_key + key_rows, a.rows) - 1;
  const int tiles_seen = (a.end[last_key] + query_rows<D> - 1) / query_rows<D> - first_tile;
  const int iterations = tiles_seen * group;

  const auto load_tile = [&](int iteration) {
    const int stage = iteration % 2, head = kv_head * group + iteration / tiles_seen;
    const int first_query = (first_tile + iteration % tiles_seen) * query_rows<D>;
    SharedTile<D>(base + Layout<D>::q + stage * query_rows<D> * D * 2)
        .template copy_rows<query_rows<D>, threads>(a.qkv + head * D, stride, first_query, a.rows);
    SharedTile<D>(base + Layout<D>::dout + stage * query_rows<D> * D * 2)
        .template copy_rows<query_rows<D>, threads>(
            a.dout + head * D, static_cast<std::int64_t>(a.query_heads) * D, first_query, a.rows);
    if (threadIdx.x < 2 * query_rows<D>) {
      const int row = first_query + threadIdx.x % query_rows<D>, kind = threadIdx.x / query_rows<D>;
      const bool valid = row < a.rows;
      const float* from = (kind == 0 ? a.lse : a.delta) + static_cast<std::int64_t>(head) * a.rows;
      copy_async_4(
          base + Layout<D>::lse + ((kind * 2 + stage) * query_rows<D> + threadIdx.x % query_rows<D>)*4,
          from + (valid ? row : 0), valid);
    }
  };

  k.template copy_rows<key_rows, threads>(a.qkv + (a.query_heads + kv_head) * D, stride, first_key, a.rows);
  v.template copy_rows<key_rows, threads>(a.qkv + (a.query_heads + a.key_value_heads + kv_head) * D, stride,
                                          first_key, a.rows);
  load_tile(0);
  commit_copies();

  float dk[2][D / 16][4], dv[2][D / 16][4];
  clear(dk);
  clear(dv);
  for (int iteration = 0; iteration < iterations; ++iteration) {
    const int stage = iteration % 2, head = kv_head * group + iteration / tiles_seen;
    const int tile = first_tile + iteration % tiles_seen, first_query = tile * query_rows<D>;
    const SharedTile<D> q(base + Layout<D>::q + stage * query_rows<D> * D * 2);
    const SharedTile<D> dout(base + Layout<D>::dout + stage * query_rows<D> * D * 2);
    wait_copies<0>();
    __syncthreads();
    if (iteration + 1 < iterations) {
      load_tile(iteration + 1);
      commit_copies();
    }
    float weights[query_tiles<D>][4][4], gradient[query_tiles<D>][4][4];
    // Both MMAs first: the exponentials of one then run beside the tensor work of the other.
    mma_rows<D>(weights, q, k, place);
    mma_rows<D>(gradient, dout, v, place);
    const int last_query = first_query + query_rows<D> - 1;
    const bool masked =
        first_query < first_key + key_rows - 1 || last_query >= a.rows || a.start[last_query] > first_key;
    exponentiate<D>(weights, a, place, rows_of_lse + stage * query_rows<D>, first_query, first_key, masked);
    store_part<D>(weights, p, place);
    differentiate<D>(weights, gradient, place, rows_of_lse + (2 + stage) * query_rows<D>);
    store_part<D>(gradient, ds, place);
    __syncthreads();
    add_transposed<D>(dv, p, dout, place);
    add_transposed<D>(dk, ds, q, place);
    add_query_gradient<D>(a, ds, k, place, head, tile);
  }
  Bf16* gradients = a.dqkv + (a.query_heads + kv_head) * D;
  write_gradient<D>(dk, gradients, stride, first_key, a.rows, place, a.scale);
  write_gradient<D>(dv, gradients + a.key_value_heads * D, stride, first_key, a.rows, place, 1);
}

template <int D>
void launch(const AttentionCall& call, cudaStream_t stream) {
  const BackwardArguments a(call);
  begin_backward<D>(a, call, stream);
  take_shared_memory(attention_backward_kernel<D>, Layout<D>::bytes);
  const dim3 grid(a.key_value_heads, (a.rows + key_rows - 1) / key_rows);
  attention_backward_kernel<D><<<grid, threads, Layout<D>::bytes, stream>>>(a);
  end_backward<D>(a, stream);
}

}  // namespace

std::size_t mma_shared_bytes(int head_dim) {
  // The forward pass takes less.
  return static_cast<std::size_t>(head_dim == 64 ? Layout<64>::bytes : Layout<128>::bytes);
}

std::int64_t dq_elements(std::int64_t rows, std::int64_t query_heads, std::int64_t head_dim) {
  return query_heads * ((rows + dq_tile - 1) / dq_tile * dq_tile) * head_dim;
}

void attention_backward_mma(const AttentionCall& call, cudaStream_t stream) {
  if (call.head_dim == 64)
    launch<64>(call, stream);
  else
    launch<128>(call, stream);
}

}  // namespace llama3d::cuda
