// Attention backward on Hopper's tensor cores, heads of 128, in the structure of FlashAttention-3 (Shah et
// al., 2024).
//
// A block owns 128 key rows of one key-value head and walks, for each of its query heads, the tiles of 64
// query rows from the diagonal to the end of the youngest document. Two warpgroups own 64 keys each and keep
// the sums of their gradients in registers; the third brings the tiles. Scores are computed transposed, keys
// by queries, so that P and dS are left-hand operands of
//   dV += P dO,  dK += dS Q
// as they lie in registers; only dS goes to shared memory, for dQ += dS^T K, of which each warpgroup computes
// half the columns and adds them to an fp32 accumulator in global memory. The blocks with most work start
// first.
//
// Where the key-value heads are few, as under tensor parallelism, a head's query heads are split over blocks,
// each with sums of its own, which a last kernel adds.

#include "cuda/attention/attention_backward.cuh"
#include "cuda/attention/attention_kernels.hpp"
#include "cuda/attention/attention_softmax.cuh"
#include "cuda/attention/sm80/mma.cuh"
#include "cuda/attention/sm90/tensor_map.hpp"
#include "cuda/attention/sm90/wgmma.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int D = 128;
constexpr int key_rows = wgmma_key_tile, query_rows = 64;
constexpr int consumers = 2;  // warpgroups
constexpr int group_keys = key_rows / consumers, group_columns = D / consumers;
constexpr int consumer_threads = consumers * warpgroup_threads,
              threads = consumer_threads + warpgroup_threads;
constexpr int stages = 2;

/// A block is one of the grid's key tiles (y), of a key-value head and one of its splits (x, the splits of a
/// head side by side).
struct Work {
  int splits;
  float* partial;  ///< (splits, T, Hkv, 2, D), dK and dV; none where one block has all query heads
};

/// Shared memory of a block.
struct Memory {
  static constexpr int key_bytes = key_rows * D * 2, query_bytes = query_rows * D * 2,
                       ds_bytes = key_rows * query_rows * 2;
  static constexpr int values_begin = key_bytes, queries_begin = values_begin + key_bytes,
                       dout_begin = queries_begin + stages * query_bytes,
                       ds_begin = dout_begin + stages * query_bytes, lse_begin = ds_begin + stages * ds_bytes,
                       delta_begin = lse_begin + stages * query_rows * 4,
                       masked_begin = delta_begin + stages * query_rows * 4,
                       barriers_begin = masked_begin + 8 * stages,
                       bytes = barriers_begin + (1 + 4 * stages) * 8;

  std::uint32_t base;

  __device__ __forceinline__ SlabTile keys() const { return {base, key_rows}; }
  __device__ __forceinline__ SlabTile values() const { return {base + values_begin, key_rows}; }
  __device__ __forceinline__ SlabTile queries(int n) const {
    return {base + queries_begin + n % stages * query_bytes, query_rows};
  }
  __device__ __forceinline__ SlabTile dout(int n) const {
    return {base + dout_begin + n % stages * query_bytes, query_rows};
  }
  /// Keys by queries.
  __device__ __forceinline__ SlabTile ds(int n) const {
    return {base + ds_begin + n % stages * ds_bytes, key_rows};
  }
  __device__ __forceinline__ std::uint32_t lse(int n, int row) const {
    return base + lse_begin + (n % stages * query_rows + row) * 4;
  }
  __device__ __forceinline__ std::uint32_t delta(int n, int row) const {
    return base + delta_begin + (n % stages * query_rows + row) * 4;
  }
  __device__ __forceinline__ std::uint32_t masked(int n) const {
    return base + masked_begin + n % stages * 8;
  }

  __device__ __forceinline__ MBarrier barrier(int index) const { return {base + barriers_begin + index * 8}; }
  __device__ __forceinline__ MBarrier keys_full() const { return barrier(0); }
  __device__ __forceinline__ MBarrier queries_full(int n) const { return barrier(1 + n % stages); }
  __device__ __forceinline__ MBarrier queries_empty(int n) const { return barrier(1 + stages + n % stages); }
  __device__ __forceinline__ MBarrier dout_full(int n) const { return barrier(1 + 2 * stages + n % stages); }
  __device__ __forceinline__ MBarrier dout_empty(int n) const { return barrier(1 + 3 * stages + n % stages); }

  __device__ void initialize() const {
    keys_full().initialize(1);
    for (int stage = 0; stage < stages; ++stage) {
      queries_full(stage).initialize(1 +
                                     32);  // the announcement of a tile, and each lane's numbers of its rows
      dout_full(stage).initialize(1 + 32);
      queries_empty(stage).initialize(consumer_threads / 32);
      dout_empty(stage).initialize(consumer_threads / 32);
    }
    fence_barrier_init();
  }
};

__device__ __forceinline__ float2 load_pair(std::uint32_t address) {
  float2 pair;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(address) : "memory");
  return pair;
}

/// The tiles that a block walks.
struct Walk {
  int kv_head, split, first_key, first_head, first_tile, tiles, count;

  __device__ __forceinline__ Walk(const BackwardArguments& a, const Work& work) {
    kv_head = blockIdx.x / work.splits;
    split = blockIdx.x % work.splits;
    first_key = blockIdx.y * key_rows;
    const int heads = a.query_heads / a.key_value_heads / work.splits;
    first_head = (kv_head * work.splits + split) * heads;
    first_tile = first_key / query_rows;
    const int last_key = min(first_key + key_rows, a.rows) - 1;
    tiles = (a.end[last_key] + query_rows - 1) / query_rows - first_tile;
    count = tiles * heads;
  }
  __device__ __forceinline__ int head(int n) const { return first_head + n / tiles; }
  __device__ __forceinline__ int first_query(int n) const { return (first_tile + n % tiles) * query_rows; }
};

/// By one warp.
__device__ void produce(const BackwardArguments& a, const CUtensorMap& qkv, const CUtensorMap& dout,
                        const Walk& walk, const Memory& memory) {
  const int lane = threadIdx.x % 32;
  const auto copy_tile = [](SlabTile tile, int first_row, const CUtensorMap& map, int column, int row,
                            MBarrier barrier) {
#pragma unroll
    for (int d = 0; d < D; d += SlabTile::slab_columns)
      tma_load_2d(tile.slab(d) + first_row * SlabTile::row_bytes, &map, column + d, row, barrier);
  };
  const auto copy_numbers = [&](auto address, const float* numbers, int n, MBarrier barrier) {
    const int first_query = walk.first_query(n);
    const float* const from = numbers + static_cast<std::int64_t>(walk.head(n)) * a.rows;
#pragma unroll
    for (int i = 0; i < query_rows; i += 32) {
      const int row = first_query + i + lane;
      copy_async_4(address(i + lane), from + (row < a.rows ? row : 0), row < a.rows);
    }
    barrier.arrive_with_copies();
  };
  if (lane == 0) {
    const int key_column = (a.query_heads + walk.kv_head) * D;
    memory.keys_full().arrive_and_expect(2 * Memory::key_bytes);
    for (int row = 0; row < key_rows; row += query_rows) {
      copy_tile(memory.keys(), row, qkv, key_column, walk.first_key + row, memory.keys_full());
      copy_tile(memory.values(), row, qkv, key_column + a.key_value_heads * D, walk.first_key + row,
                memory.keys_full());
    }
  }
  for (int n = 0; n < walk.count; ++n) {
    const int first_query = walk.first_query(n), last_query = first_query + query_rows - 1;
    memory.queries_empty(n).wait(n / stages - 1);
    copy_numbers([&](int i) { return memory.lse(n, i); }, a.lse, n, memory.queries_full(n));
    if (lane == 0) {
      const bool masked = first_query < walk.first_key + key_rows - 1 || last_query >= a.rows ||
                          a.start[last_query] > walk.first_key;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(memory.masked(n)), "r"(static_cast<int>(masked))
                   : "memory");
      memory.queries_full(n).arrive_and_expect(Memory::query_bytes);
      copy_tile(memory.queries(n), 0, qkv, walk.head(n) * D, first_query, memory.queries_full(n));
    }
    memory.dout_empty(n).wait(n / stages - 1);
    copy_numbers([&](int i) { return memory.delta(n, i); }, a.delta, n, memory.dout_full(n));
    if (lane == 0) {
      memory.dout_full(n).arrive_and_expect(Memory::query_bytes);
      copy_tile(memory.dout(n), 0, dout, walk.head(n) * D, first_query, memory.dout_full(n));
    }
  }
}

/// Of a thread: two keys, a quarter of the queries.
using Scores = float[query_rows / 2];
using Packed = std::uint32_t[query_rows / 4];

/// Scores become weights, 0 for hidden pairs.
__device__ __forceinline__ void exponentiate(Scores& scores, const BackwardArguments& a, const Memory& memory,
                                             int n, int first_query, int key) {
  const float scale_log2 = a.scale * log2_e;
  const int lane_query = threadIdx.x % 4 * 2;
  std::uint32_t masked;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(masked) : "r"(memory.masked(n)) : "memory");
#pragma unroll
  for (int q = 0; q < query_rows; q += 8) {
    const float2 lse = load_pair(memory.lse(n, q + lane_query));
#pragma unroll
    for (int i = 0; i < 4; ++i)
      scores[q / 2 + i] =
          exp2_fast(fmaf(scores[q / 2 + i], scale_log2, -(i % 2 == 0 ? lse.x : lse.y) * log2_e));
  }
  if (masked == 0) return;
#pragma unroll
  for (int q = 0; q < query_rows; q += 8)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = first_query + q + lane_query + i % 2, at = key + i / 2 * 8;
      if (query >= a.rows || at > query || at < a.start[query]) scores[q / 2 + i] = 0;
    }
}

/// Weights and d(weights) become d(scores), in place of the latter.
__device__ __forceinline__ void differentiate(const Scores& weights, Scores& d, const Memory& memory, int n) {
#pragma unroll
  for (int q = 0; q < query_rows; q += 8) {
    const float2 delta = load_pair(memory.delta(n, q + threadIdx.x % 4 * 2));
#pragma unroll
    for (int i = 0; i < 4; ++i)
      d[q / 2 + i] = weights[q / 2 + i] * (d[q / 2 + i] - (i % 2 == 0 ? delta.x : delta.y));
  }
}

__device__ __forceinline__ void pack_pairs(const Scores& values, Packed& packed) {
#pragma unroll
  for (int i = 0; i < query_rows / 4; ++i) packed[i] = pack(values[2 * i], values[2 * i + 1]);
}

/// Writes a warp's 16 keys of dS.
__device__ __forceinline__ void store_ds(const Packed& packed, const SlabTile& ds, int warp_key) {
  const int lane = threadIdx.x % 32, row = warp_key + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int q = 0; q < query_rows; q += 16)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                     ds.piece(row, q + lane / 16 * 8)),
                 "r"(packed[q / 4]), "r"(packed[q / 4 + 1]), "r"(packed[q / 4 + 2]), "r"(packed[q / 4 + 3])
                 : "memory");
}

/// Writes a thread's two rows of dK or dV, (64 keys of a warpgroup, D).
__device__ __forceinline__ void write_gradient(const float (&sum)[D / 2], const BackwardArguments& a,
                                               const Work& work, const Walk& walk, int key, int which,
                                               float factor) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = key + 8 * r;
    if (row >= a.rows) continue;
    const int column = threadIdx.x % 4 * 2;
    if (work.partial) {
      const std::int64_t place =
          (static_cast<std::int64_t>(walk.split) * a.rows + row) * a.key_value_heads + walk.kv_head;
      float* const to = work.partial + (place * 2 + which) * D + column;
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(sum[4 * n + 2 * r], sum[4 * n + 2 * r + 1]);
    } else {
      Bf16* const to = a.dqkv + row * a.stride(D) +
                       (a.query_heads + which * a.key_value_heads + walk.kv_head) * D + column;
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
        *reinterpret_cast<std::uint32_t*>(to + n * 8) =
            pack(sum[4 * n + 2 * r] * factor, sum[4 * n + 2 * r + 1] * factor);
    }
  }
}

__device__ void consume(const BackwardArguments& a, const Work& work, const Walk& walk,
                        const Memory& memory) {
  const int group = threadIdx.x / warpgroup_threads, warp = threadIdx.x % warpgroup_threads / 32,
            lane = threadIdx.x % 32;
  const int warp_key = group * group_keys + warp * 16, key = walk.first_key + warp_key + lane / 4;
  float dk[D / 2], dv[D / 2];
  memory.keys_full().wait(0);
  for (int n = 0; n < walk.count; ++n) {
    const SlabTile queries = memory.queries(n), dout = memory.dout(n), ds = memory.ds(n);
    Scores weights, gradient;
    memory.queries_full(n).wait(n / stages);
    warpgroup_arrive();
#pragma unroll
    for (int d = 0; d < D; d += 16)
      wgmma<true>(weights, memory.keys().rows_of_operand(group * group_keys, d),
                  queries.rows_of_operand(0, d), d > 0);
    warpgroup_commit_batch();
    memory.dout_full(n).wait(n / stages);
    warpgroup_arrive();
#pragma unroll
    for (int d = 0; d < D; d += 16)
      wgmma<true>(gradient, memory.values().rows_of_operand(group * group_keys, d),
                  dout.rows_of_operand(0, d), d > 0);
    warpgroup_commit_batch();

    warpgroup_wait<1>();
    warpgroup_fence_operand(weights);
    exponentiate(weights, a, memory, n, walk.first_query(n), key);
    Packed p, s;
    pack_pairs(weights, p);
    warpgroup_wait<0>();
    warpgroup_fence_operand(gradient);
    differentiate(weights, gradient, memory, n);
    pack_pairs(gradient, s);
    store_ds(s, ds, warp_key);
    fence_view_async_shared();

    warpgroup_arrive();
#pragma unroll
    for (int q = 0; q < query_rows; q += 16) wgmma(dv, p + q / 4, dout.columns_of_operand(q), n > 0 || q > 0);
    warpgroup_commit_batch();
    named_barrier_sync(1, consumer_threads);
    float dq[group_columns / 2];
    warpgroup_arrive();
#pragma unroll
    for (int k = 0; k < key_rows; k += 16)
      wgmma<false>(dq, ds.columns_of_operand(k), memory.keys().columns_of_operand(k, group * group_columns),
                   k > 0);
    warpgroup_commit_batch();
    warpgroup_wait<1>();
    warpgroup_fence_operand(dv);
    warpgroup_fence_operand(p);
    memory.dout_empty(n).arrive_as_warp();
    warpgroup_arrive();
#pragma unroll
    for (int q = 0; q < query_rows; q += 16)
      wgmma(dk, s + q / 4, queries.columns_of_operand(q), n > 0 || q > 0);
    warpgroup_commit_batch();
    warpgroup_wait<1>();
    warpgroup_fence_operand(dq);
#pragma unroll
    for (int i = 0; i < group_columns / 8; ++i) {
      const float fragment[4] = {dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]};
      add_to(
          a.dq +
              a.dq_offset<D>(walk.head(n), walk.first_query(n) / 16 + warp, group * (group_columns / 8) + i) +
              lane * 4,
          fragment);
    }
    warpgroup_wait<0>();
    warpgroup_fence_operand(dk);
    warpgroup_fence_operand(s);
    memory.queries_empty(n).arrive_as_warp();
  }
  write_gradient(dk, a, work, walk, key, 0, a.scale);
  write_gradient(dv, a, work, walk, key, 1, 1);
}

__global__ __launch_bounds__(threads,
                             1) void attention_backward_kernel(const BackwardArguments a, const Work work,
                                                               const __grid_constant__ CUtensorMap qkv,
                                                               const __grid_constant__ CUtensorMap dout) {
  extern __shared__ __align__(1024) std::byte shared[];
  const Memory memory{shared_address(shared)};
  if (threadIdx.x == 0) memory.initialize();
  __syncthreads();
  const Walk walk(a, work);
  if (threadIdx.x >= consumer_threads) {
    warpgroup_reg_dealloc<24>();
    if (threadIdx.x < consumer_threads + 32) produce(a, qkv, dout, walk, memory);
  } else {
    warpgroup_reg_alloc<240>();
    consume(a, work, walk, memory);
  }
}

/// dK and dV from the sums of several blocks. A thread takes 8 columns of a row.
__global__ __launch_bounds__(256) void key_gradient_kernel(const BackwardArguments a, const Work work) {
  const std::int64_t pieces = std::int64_t{a.rows} * a.key_value_heads * 2 * (D / 8);
  const std::int64_t piece = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (piece >= pieces) return;
  Packet<8> sum{};
  for (int split = 0; split < work.splits; ++split) {
    const float4* const from = reinterpret_cast<const float4*>(work.partial + (split * pieces + piece) * 8);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 value = from[half];
      sum.value[4 * half] += value.x;
      sum.value[4 * half + 1] += value.y;
      sum.value[4 * half + 2] += value.z;
      sum.value[4 * half + 3] += value.w;
    }
  }
  const int column = static_cast<int>(piece % (D / 8)) * 8, which = static_cast<int>(piece / (D / 8) % 2),
            kv_head = static_cast<int>(piece / (D / 4) % a.key_value_heads);
  const std::int64_t row = piece / (D / 4) / a.key_value_heads;
#pragma unroll
  for (float& value : sum.value) value *= which == 0 ? a.scale : 1;
  sum.store(a.dqkv + row * a.stride(D) + (a.query_heads + which * a.key_value_heads + kv_head) * D + column);
}

}  // namespace

void attention_backward_wgmma(const AttentionCall& call, cudaStream_t stream) {
  const BackwardArguments a(call);
  const Work work{call.splits, call.splits > 1 ? call.partial : nullptr};
  begin_backward<D>(a, call, stream);
  take_shared_memory(attention_backward_kernel, Memory::bytes);
  const dim3 grid(call.key_value_heads * call.splits, divide_up(call.rows, key_rows));
  attention_backward_kernel<<<grid, threads, Memory::bytes, stream>>>(
      a, work, map_matrix(call.qkv, call.rows, call.fused_columns(), query_rows),
      map_matrix(call.dout, call.rows, call.output_columns(), query_rows));
  end_backward<D>(a, stream);
  if (call.splits > 1)
    key_gradient_kernel<<<blocks_for(std::int64_t{a.rows} * a.key_value_heads * 2 * (D / 8), 256), 256, 0,
                          stream>>>(a, work);
}

}  // namespace llama3d::cuda
