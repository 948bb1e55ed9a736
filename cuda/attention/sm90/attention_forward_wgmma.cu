// Attention forward on Hopper's tensor cores, in the structure of FlashAttention-3 (Shah et al., 2024).
//
// A block of threads takes 128 query rows of one head after another. One thread brings tiles of 128 keys and
// values to shared memory, two of each ahead; two warpgroups own 64 query rows each. While a warpgroup
// multiplies one tile's weights with its values, the next tile's scores are computed, and their exponentials
// while the other warpgroup has the tensor cores. Key tiles are walked from the diagonal down to the first
// key of the oldest document in sight.

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/attention/attention_softmax.cuh"
#include "cuda/attention/sm80/mma.cuh"
#include "cuda/attention/sm90/tensor_map.hpp"
#include "cuda/attention/sm90/wgmma.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int tile_rows = 128;  // queries of a block, keys of a tile
constexpr int consumers = 2;    // warpgroups
constexpr int group_rows = tile_rows / consumers;
constexpr int consumer_threads = consumers * warpgroup_threads;
constexpr int threads = consumer_threads + warpgroup_threads;
constexpr int stages = 2;

struct Arguments {
  const std::int32_t* start;
  Bf16* out;
  float* lse;
  int* counters;  ///< items taken, blocks that take no more
  int rows, query_heads, key_value_heads;
  float scale;
};

/// Blocks of rows of all heads, which blocks of threads take one by one. The longest come first, and heads
/// that share keys side by side. Other kernels may hold some multiprocessors, so nothing is dealt out
/// beforehand.
struct Items {
  int row_blocks, heads;

  __device__ __forceinline__ int count() const { return row_blocks * heads; }
  __device__ __forceinline__ int head(int item) const { return item % heads; }
  __device__ __forceinline__ int block_row(int item) const {
    return (row_blocks - 1 - item / heads) * tile_rows;
  }
};

/// A block of threads ends after so many, and leaves its multiprocessor to what is waiting for one, such as
/// NCCL.
constexpr int most_items = 8;

/// Shared memory of a block.
template <int D>
struct Memory {
  static constexpr int tile_bytes = tile_rows * D * 2;
  static constexpr int barriers_begin = (1 + 2 * stages) * tile_bytes;
  static constexpr int barrier_count = 2 + 4 * stages;
  static constexpr int item_begin = barriers_begin + barrier_count * 8;
  static constexpr int bytes = item_begin + 8;
  static constexpr int no_item = -1;

  std::uint32_t base;

  __device__ __forceinline__ SlabTile tile(int index) const { return {base + index * tile_bytes, tile_rows}; }
  __device__ __forceinline__ SlabTile queries() const { return tile(0); }
  __device__ __forceinline__ SlabTile keys(int n) const { return tile(1 + n % stages); }
  __device__ __forceinline__ SlabTile values(int n) const { return tile(1 + stages + n % stages); }

  __device__ __forceinline__ MBarrier barrier(int index) const { return {base + barriers_begin + index * 8}; }
  __device__ __forceinline__ MBarrier queries_full() const { return barrier(0); }
  __device__ __forceinline__ MBarrier queries_empty() const { return barrier(1); }
  __device__ __forceinline__ MBarrier keys_full(int n) const { return barrier(2 + n % stages); }
  __device__ __forceinline__ MBarrier keys_empty(int n) const { return barrier(2 + stages + n % stages); }
  __device__ __forceinline__ MBarrier values_full(int n) const {
    return barrier(2 + 2 * stages + n % stages);
  }
  __device__ __forceinline__ MBarrier values_empty(int n) const {
    return barrier(2 + 3 * stages + n % stages);
  }

  /// Of the queries that are there.
  __device__ __forceinline__ void set_item(int item) const {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(base + item_begin), "r"(item) : "memory");
  }
  __device__ __forceinline__ int item() const {
    int item;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(item) : "r"(base + item_begin) : "memory");
    return item;
  }

  __device__ void initialize() const {
    constexpr int consumer_warps = consumer_threads / 32;
    queries_full().initialize(1);
    queries_empty().initialize(consumer_warps);
    for (int stage = 0; stage < stages; ++stage) {
      keys_full(stage).initialize(1);
      values_full(stage).initialize(1);
      keys_empty(stage).initialize(consumer_warps);
      values_empty(stage).initialize(consumer_warps);
    }
    fence_barrier_init();
  }
};

template <int D>
__device__ __forceinline__ void load(SlabTile tile, const CUtensorMap& map, int column, int row,
                                     MBarrier full) {
  full.arrive_and_expect(Memory<D>::tile_bytes);
#pragma unroll
  for (int d = 0; d < D; d += SlabTile::slab_columns) tma_load_2d(tile.slab(d), &map, column + d, row, full);
}

/// By one thread: items until there are none, their tiles of keys one ahead of those of values.
template <int D>
__device__ void produce(const Arguments& a, const CUtensorMap& qkv, const Items& items, Memory<D> memory) {
  int n = 0;      // tiles of earlier items
  int count = 0;  // earlier items
  for (int item = atomicAdd(a.counters, 1), next; item < items.count(); item = next, ++count) {
    next = count + 1 < most_items ? atomicAdd(a.counters, 1) : items.count();
    const int head = items.head(item), block_row = items.block_row(item);
    const int kv_head = head / (a.query_heads / a.key_value_heads);
    const int key_column = (a.query_heads + kv_head) * D, value_column = key_column + a.key_value_heads * D;
    const int last = block_row / tile_rows, first = a.start[block_row] / tile_rows;
    const auto load_keys = [&](int tile) {
      const int i = n + last - tile;
      memory.keys_empty(i).wait(i / stages - 1);
      load<D>(memory.keys(i), qkv, key_column, tile * tile_rows, memory.keys_full(i));
    };
    load_keys(last);
    memory.queries_empty().wait(count - 1);
    memory.set_item(item);
    load<D>(memory.queries(), qkv, head * D, block_row, memory.queries_full());
#pragma unroll 1
    for (int tile = last; tile >= first; --tile) {
      if (tile > first) load_keys(tile - 1);
      const int i = n + last - tile;
      memory.values_empty(i).wait(i / stages - 1);
      load<D>(memory.values(i), qkv, value_column, tile * tile_rows, memory.values_full(i));
    }
    n += last - first + 1;
  }
  memory.queries_empty().wait(count - 1);
  memory.set_item(Memory<D>::no_item);
  memory.queries_full().arrive();
  // The last block leaves zeros.
  if (atomicAdd(a.counters + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    atomicExch(a.counters, 0);
    atomicExch(a.counters + 1, 0);
  }
}

/// What a thread keeps of its two rows of an item.
template <int D>
struct RowState {
  float out[D / 2];
  float reference[2];  ///< score at which exponentials are 1
  float sum[2];        ///< of exponentials, this thread's columns only
};

constexpr int score_count = tile_rows / 2;  // of a thread: two rows, a quarter of the keys
using Scores = float[score_count];
using Weights = std::uint32_t[score_count / 2];

template <int D>
__device__ __forceinline__ void start_scores(Scores& scores, SlabTile queries, int first_row, SlabTile keys) {
  warpgroup_arrive();
#pragma unroll
  for (int d = 0; d < D; d += 16)
    wgmma(scores, queries.rows_of_operand(first_row, d), keys.rows_of_operand(0, d), d > 0);
  warpgroup_commit_batch();
}

template <int D>
__device__ __forceinline__ void start_output(RowState<D>& state, const Weights& weights, SlabTile values,
                                             bool add) {
  warpgroup_arrive();
#pragma unroll
  for (int key = 0; key < tile_rows; key += 16)
    wgmma(state.out, weights + key / 4, values.columns_of_operand(key), add || key > 0);
  warpgroup_commit_batch();
}

/// Minus infinity where the key lies behind the query or in an older document.
__device__ __forceinline__ void mask_scores(Scores& scores, int first_key, int row, const int (&start)[2]) {
  const int lane_key = first_key + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < score_count; ++i) {
    const int key = lane_key + i / 4 * 8 + i % 2, r = i / 2 % 2;
    if (key > row + 8 * r || key < start[r]) scores[i] = -INFINITY;
  }
}

/// Moves the references up where they must; returns whether, for any row of the warp, and by which factor
/// what was summed so far shrinks.
template <int D>
__device__ __forceinline__ bool raise_references(const Scores& scores, RowState<D>& state, float scale_log2,
                                                 bool first, float (&factor)[2]) {
  float largest[2];
  bool grows = first;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float value = -INFINITY;
#pragma unroll
    for (int i = 2 * r; i < score_count; i += 4) value = fmaxf(value, fmaxf(scores[i], scores[i + 1]));
    largest[r] = quad_max(value);
    grows |= largest[r] > state.reference[r] + tolerated_growth / scale_log2;
  }
  if (!__any_sync(0xffffffffu, grows)) return false;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float old = state.reference[r], raised = fmaxf(old, largest[r]);
    factor[r] = old == raised ? 1.0f : exp2_fast((old - raised) * scale_log2);
    state.reference[r] = raised;
    state.sum[r] *= factor[r];
  }
  return true;
}

/// Scores become exponentials, and their sums grow. Every row has seen its own key by now, so its reference
/// is a number.
template <int D>
__device__ __forceinline__ void exponentiate(Scores& scores, RowState<D>& state, float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float shift = state.reference[r] * scale_log2;
    float sum = 0;
#pragma unroll
    for (int i = 2 * r; i < score_count; i += 4)
#pragma unroll
      for (int j = i; j < i + 2; ++j) {
        scores[j] = exp2_fast(fmaf(scores[j], scale_log2, -shift));
        sum += scores[j];
      }
    state.sum[r] += sum;
  }
}

__device__ __forceinline__ void pack_weights(const Scores& scores, Weights& weights) {
#pragma unroll
  for (int i = 0; i < score_count / 2; ++i) weights[i] = pack(scores[2 * i], scores[2 * i + 1]);
}

/// The quad's four lanes hold a pair of each of four tiles of 8 columns; afterwards each holds one tile's.
__device__ __forceinline__ void transpose_in_quad(std::uint32_t (&pairs)[4]) {
  const auto exchange = [](std::uint32_t& i, std::uint32_t& j, int mask, bool keeps_second) {
    const std::uint32_t received = __shfl_xor_sync(0xffffffffu, keeps_second ? i : j, mask);
    i = keeps_second ? received : i;
    j = keeps_second ? j : received;
  };
  const bool odd = threadIdx.x % 2 != 0, high = threadIdx.x % 4 >= 2;
  exchange(pairs[0], pairs[1], 1, odd);
  exchange(pairs[2], pairs[3], 1, odd);
  exchange(pairs[0], pairs[2], 2, high);
  exchange(pairs[1], pairs[3], 2, high);
}

template <int D>
__device__ __forceinline__ void write_rows(const Arguments& a, const RowState<D>& state, int head, int row) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = quad_sum(state.sum[r]), inverse = 1.0f / sum;
    const int at = row + 8 * r;
    if (threadIdx.x % 4 == 0 && at < a.rows)
      a.lse[static_cast<std::int64_t>(head) * a.rows + at] = state.reference[r] * a.scale + logf(sum);
    Bf16* const to = a.out + (static_cast<std::int64_t>(at) * a.query_heads + head) * D + threadIdx.x % 4 * 8;
#pragma unroll
    for (int column = 0; column < D; column += 32) {
      std::uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* values = state.out + column / 2 + i * 4 + 2 * r;
        pairs[i] = pack(values[0] * inverse, values[1] * inverse);
      }
      transpose_in_quad(pairs);
      if (at < a.rows)
        *reinterpret_cast<uint4*>(to + column) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
  }
}

template <int D>
__device__ void consume(const Arguments& a, const Items& items, Memory<D> memory) {
  const int group = threadIdx.x / warpgroup_threads, lane = threadIdx.x % 32;
  const int group_row = group * group_rows, warp_row = group_row + threadIdx.x % warpgroup_threads / 32 * 16;
  const float scale_log2 = a.scale * log2_e;
  // The warpgroups take turns to start MMAs. Heads of 64 have as many exponentials for half the MMAs,
  // so the tensor cores are free often enough.
  constexpr bool turns = D > 64;
  const auto wait_for_turn = [&] {
    if (turns) named_barrier_sync(1 + group, consumer_threads);
  };
  const auto give_turn = [&] {
    if (turns) named_barrier_arrive(1 + (1 - group), consumer_threads);
  };
  if (group == 1) give_turn();

  int n = 0;  // tiles of earlier items
  for (int count = 0;; ++count) {
    memory.queries_full().wait(count);
    const int item = memory.item();
    if (item == Memory<D>::no_item) break;
    const int head = items.head(item), block_row = items.block_row(item);
    const int row = block_row + warp_row + lane / 4;
    const int start[2] = {a.start[min(row, a.rows - 1)], a.start[min(row + 8, a.rows - 1)]};
    const int youngest_start = a.start[min(block_row + group_row + group_rows, a.rows) - 1];
    const int last = block_row / tile_rows, first = a.start[block_row] / tile_rows;

    RowState<D> state;
    Scores scores;
    Weights weights;
    float factor[2];
    state.reference[0] = state.reference[1] = -INFINITY;
    state.sum[0] = state.sum[1] = 0;

    memory.keys_full(n).wait(n / stages);
    start_scores<D>(scores, memory.queries(), group_row, memory.keys(n));
    warpgroup_wait<0>();
    warpgroup_fence_operand(scores);
    memory.keys_empty(n).arrive_as_warp();
    if (last == first) memory.queries_empty().arrive_as_warp();
    mask_scores(scores, last * tile_rows, row, start);
    raise_references(scores, state, scale_log2, true, factor);
    exponentiate(scores, state, scale_log2);
    pack_weights(scores, weights);

    for (int tile = last - 1; tile >= first; --tile, ++n) {
      memory.keys_full(n + 1).wait((n + 1) / stages);
      wait_for_turn();
      start_scores<D>(scores, memory.queries(), group_row, memory.keys(n + 1));
      memory.values_full(n).wait(n / stages);
      start_output<D>(state, weights, memory.values(n), tile < last - 1);
      give_turn();
      warpgroup_wait<1>();
      warpgroup_fence_operand(scores);
      memory.keys_empty(n + 1).arrive_as_warp();
      if (tile == first) memory.queries_empty().arrive_as_warp();
      if (tile * tile_rows < youngest_start) mask_scores(scores, tile * tile_rows, row, start);
      const bool raised = raise_references(scores, state, scale_log2, false, factor);
      exponentiate(scores, state, scale_log2);
      warpgroup_wait<0>();
      warpgroup_fence_operand(state.out);
      warpgroup_fence_operand(weights);
      memory.values_empty(n).arrive_as_warp();
      if (raised) {
#pragma unroll
        for (int i = 0; i < D / 2; ++i) state.out[i] *= factor[i / 2 % 2];
      }
      pack_weights(scores, weights);
    }
    memory.values_full(n).wait(n / stages);
    start_output<D>(state, weights, memory.values(n), last > first);
    warpgroup_wait<0>();
    warpgroup_fence_operand(state.out);
    memory.values_empty(n).arrive_as_warp();
    ++n;
    write_rows<D>(a, state, head, row);
  }
}

template <int D>
__global__ __launch_bounds__(threads,
                             1) void attention_forward_kernel(const Arguments a, const Items items,
                                                              const __grid_constant__ CUtensorMap qkv) {
  extern __shared__ __align__(1024) std::byte shared[];
  const Memory<D> memory{shared_address(shared)};
  if (threadIdx.x == 0) memory.initialize();
  __syncthreads();
  if (threadIdx.x >= consumer_threads) {
    warpgroup_reg_dealloc<40>();
    if (threadIdx.x == consumer_threads) produce<D>(a, qkv, items, memory);
  } else {
    warpgroup_reg_alloc<232>();
    consume<D>(a, items, memory);
  }
}

template <int D>
void launch(const AttentionCall& call, int multiprocessors, cudaStream_t stream) {
  take_shared_memory(attention_forward_kernel<D>, Memory<D>::bytes);
  const Arguments a{call.start,       static_cast<Bf16*>(call.out), call.lse,  call.counters, call.rows,
                    call.query_heads, call.key_value_heads,         call.scale};
  const Items items{divide_up(call.rows, tile_rows), call.query_heads};
  const int count = items.row_blocks * items.heads;
  const int blocks = std::max(std::min(multiprocessors, count), divide_up(count, most_items));
  attention_forward_kernel<D><<<blocks, threads, Memory<D>::bytes, stream>>>(
      a, items, map_matrix(call.qkv, call.rows, call.fused_columns(), tile_rows));
}

}  // namespace

bool has_wgmma_code() {
  return true;
}

void attention_forward_wgmma(const AttentionCall& call, int multiprocessors, cudaStream_t stream) {
  if (call.head_dim == 64)
    launch<64>(call, multiprocessors, stream);
  else
    launch<128>(call, multiprocessors, stream);
}

}  // namespace llama3d::cuda
