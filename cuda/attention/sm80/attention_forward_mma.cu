// Attention forward on tensor cores.
//
// A block computes 128 query rows of one head; each of its four warps owns 32 of them, with the running
// output in registers. It walks the key tiles from the diagonal down to the first key of the oldest document
// in sight: while the scores of a tile are computed its values are on their way, and while its values are
// used the next keys are. Tall blocks start first, so that short ones fill the end.

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/attention/attention_softmax.cuh"
#include "cuda/attention/sm80/mma.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int block_rows = 128;
constexpr int warps = 4;
constexpr int threads = warps * 32;
constexpr int warp_rows = block_rows / warps;  // two tiles of 16
constexpr int key_rows = 64;                   // of a tile

struct Arguments {
  const Bf16* qkv;
  const std::int32_t* start;
  Bf16* out;
  float* lse;
  int rows, query_heads, key_value_heads;
  float scale;
};

/// What a thread keeps of its rows: 2 tiles of 16 rows, 2 rows of each a thread.
template <int D>
struct RowState {
  float out[2][D / 8][4];
  float reference[2][2];  ///< score at which exponentials are 1
  float sum[2][2];        ///< of exponentials, this thread's columns only
};

template <int D, int N>
__device__ __forceinline__ void compute_scores(float (&scores)[2][N / 8][4], const SharedTile<D>& q,
                                               const SharedTile<D>& k, int first_row) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][n][i] = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    std::uint32_t a[2][4];
    q.load_a(a[0], first_row, d);
    q.load_a(a[1], first_row + 16, d);
#pragma unroll
    for (int n = 0; n < N / 16; ++n) {
      std::uint32_t b[4];
      k.load_b(b, n * 16, d);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_16x8x16(scores[m][2 * n], a[m], b[0], b[1]);
        mma_16x8x16(scores[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Minus infinity where the key lies behind the query or in an older document.
template <int N>
__device__ __forceinline__ void mask_scores(float (&scores)[2][N / 8][4], const Arguments& a, int first_row,
                                            int first_key) {
  const int lane = threadIdx.x % 32, lane_key = first_key + lane % 4 * 2;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + m * 16 + r * 8 + lane / 4, start = a.start[min(row, a.rows - 1)];
#pragma unroll
      for (int n = 0; n < N / 8; ++n)
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          const int key = lane_key + n * 8 + i % 2;
          if (key > row || key < start) scores[m][n][i] = -INFINITY;
        }
    }
}

/// Moves the references up where they must, with sums and outputs.
template <int D, int N>
__device__ __forceinline__ void raise_references(const float (&scores)[2][N / 8][4], RowState<D>& state,
                                                 float scale_log2) {
  float largest[2][2];
  bool grows = false;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float value = -INFINITY;
#pragma unroll
      for (int n = 0; n < N / 8; ++n)
        value = fmaxf(value, fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
      largest[m][r] = quad_max(value);
      grows |= largest[m][r] > state.reference[m][r] + tolerated_growth / scale_log2;
    }
  if (!__any_sync(0xffffffffu, grows)) return;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float old = state.reference[m][r], raised = fmaxf(old, largest[m][r]);
      const float factor = old == raised ? 1.0f : exp2_fast((old - raised) * scale_log2);
      state.reference[m][r] = raised;
      state.sum[m][r] *= factor;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        state.out[m][n][2 * r] *= factor;
        state.out[m][n][2 * r + 1] *= factor;
      }
    }
}

/// Scores become exponentials, and their sums grow.
template <int D, int N>
__device__ __forceinline__ void exponentiate(float (&scores)[2][N / 8][4], RowState<D>& state,
                                             float scale_log2) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // A row that has seen no key yet has only scores of minus infinity.
      const float shift = state.reference[m][r] == -INFINITY ? 0.0f : state.reference[m][r] * scale_log2;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < N / 8; ++n)
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], scale_log2, -shift));
          sum += scores[m][n][i];
        }
      state.sum[m][r] += sum;
    }
}

template <int D, int N>
__device__ __forceinline__ void add_values(RowState<D>& state, const float (&weights)[2][N / 8][4],
                                           const SharedTile<D>& v) {
#pragma unroll
  for (int key = 0; key < N; key += 16) {
    std::uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const auto& low = weights[m][key / 8];
      const auto& high = weights[m][key / 8 + 1];
      a[m][0] = pack(low[0], low[1]);
      a[m][1] = pack(low[2], low[3]);
      a[m][2] = pack(high[0], high[1]);
      a[m][3] = pack(high[2], high[3]);
    }
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      std::uint32_t b[4];
      v.load_b_transposed(b, key, n * 16);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_16x8x16(state.out[m][2 * n], a[m], b[0], b[1]);
        mma_16x8x16(state.out[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Normalizes and writes the warp's rows, through its own rows of `staging`.
template <int D>
__device__ __forceinline__ void write_rows(const Arguments& a, const RowState<D>& state,
                                           const SharedTile<D>& staging, int head, int block_row,
                                           int warp_row) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(state.sum[m][r]);
      const float inverse = 1.0f / sum;
      const int row = block_row + warp_row + m * 16 + r * 8 + lane / 4;
      if (lane % 4 == 0 && row < a.rows)
        a.lse[static_cast<std::int64_t>(head) * a.rows + row] = state.reference[m][r] * a.scale + logf(sum);
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        const std::uint32_t pair =
            pack(state.out[m][n][2 * r] * inverse, state.out[m][n][2 * r + 1] * inverse);
        const std::uint32_t to = staging.address(warp_row + m * 16 + r * 8 + lane / 4, n * 8 + lane % 4 * 2);
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(pair));
      }
    }
  __syncwarp();
  constexpr int pieces = D / 8;
#pragma unroll
  for (int i = 0; i < warp_rows * pieces / 32; ++i) {
    const int piece = i * 32 + lane, row = warp_row + piece / pieces, column = piece % pieces * 8;
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(staging.address(row, column)));
    if (block_row + row < a.rows)
      *reinterpret_cast<uint4*>(
          a.out + (static_cast<std::int64_t>(block_row + row) * a.query_heads + head) * D + column) = value;
  }
}

template <int D>
__global__ __launch_bounds__(threads, D == 64 ? 3 : 2) void attention_forward_kernel(const Arguments a) {
  constexpr int N = key_rows;
  extern __shared__ __align__(1024) std::byte shared[];
  const SharedTile<D> q(shared_address(shared)), k(q.base + block_rows * D * 2), v(k.base + N * D * 2);

  const int head = blockIdx.x, block_row = (gridDim.y - 1 - blockIdx.y) * block_rows;
  const int kv_head = head / (a.query_heads / a.key_value_heads);
  const std::int64_t stride = static_cast<std::int64_t>(a.query_heads + 2 * a.key_value_heads) * D;
  const Bf16* queries = a.qkv + head * D;
  const Bf16* keys = a.qkv + (a.query_heads + kv_head) * D;
  const Bf16* values = keys + a.key_value_heads * D;

  const int last_row = min(block_row + block_rows, a.rows) - 1;
  const int first_tile = a.start[block_row] / N;
  int tile = last_row / N;

  q.template copy_rows<block_rows, threads>(queries, stride, block_row, a.rows);
  k.template copy_rows<N, threads>(keys, stride, tile * N, a.rows);
  commit_copies();

  const int warp_row = threadIdx.x / 32 * warp_rows;
  const int first_row = block_row + warp_row, final_row = min(first_row + warp_rows, a.rows) - 1;
  RowState<D> state;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      state.reference[m][r] = -INFINITY;
      state.sum[m][r] = 0;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) state.out[m][n][2 * r] = state.out[m][n][2 * r + 1] = 0;
    }
  const int youngest_start = a.start[final_row];
  const float scale_log2 = a.scale * log2_e;

  for (; tile >= first_tile; --tile) {
    const int first_key = tile * N;
    const bool in_sight = first_key <= final_row;
    wait_copies<0>();
    __syncthreads();
    v.template copy_rows<N, threads>(values, stride, first_key, a.rows);
    commit_copies();
    float scores[2][N / 8][4];
    if (in_sight) compute_scores<D, N>(scores, q.anew(), k.anew(), warp_row);
    wait_copies<0>();
    __syncthreads();
    if (tile > first_tile) {
      k.template copy_rows<N, threads>(keys, stride, first_key - N, a.rows);
      commit_copies();
    }
    if (!in_sight) continue;
    if (first_key + N - 1 > first_row || first_key < youngest_start)
      mask_scores<N>(scores, a, first_row, first_key);
    raise_references<D, N>(scores, state, scale_log2);
    exponentiate<D, N>(scores, state, scale_log2);
    add_values<D, N>(state, scores, v.anew());
  }
  write_rows<D>(a, state, q, head, block_row, warp_row);
}

template <int D>
void launch(const Arguments& a, cudaStream_t stream) {
  constexpr int bytes = (block_rows + 2 * key_rows) * D * 2;
  take_shared_memory(attention_forward_kernel<D>, bytes);
  const dim3 grid(a.query_heads, (a.rows + block_rows - 1) / block_rows);
  attention_forward_kernel<D><<<grid, threads, bytes, stream>>>(a);
}

}  // namespace

void attention_forward_mma(const AttentionCall& call, cudaStream_t stream) {
  const Arguments a{static_cast<const Bf16*>(call.qkv),
                    call.start,
                    static_cast<Bf16*>(call.out),
                    call.lse,
                    call.rows,
                    call.query_heads,
                    call.key_value_heads,
                    call.scale};
  if (call.head_dim == 64)
    launch<64>(a, stream);
  else
    launch<128>(a, stream);
}

}  // namespace llama3d::cuda
