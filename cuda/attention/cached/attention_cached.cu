// Attention to cached keys and values.
//
// A block takes one row and one key-value head with up to eight of its query heads, so that an entry is read
// once for all of them. Each team of lanes takes every so manieth entry and keeps a softmax of its own with a
// running maximum (Dao et al., 2022); teams, then warps, then splits are joined at the end. Where rows and
// heads alone don't fill the GPU, the entries of a row are split over several blocks (Dao et al.,
// "Flash-Decoding", 2023). Every sum has a fixed order.

#include <algorithm>
#include <cmath>

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {
namespace {

constexpr int threads = 128;
constexpr int warps = threads / 32;
/// Elements of a head that a lane holds.
constexpr int per_lane = packet_size;
/// Below any score, and finite: differences of it are numbers.
constexpr float lowest = -1e30f;
/// Entries that make a split worth its own block.
constexpr std::int64_t least_entries = 256;

struct CachedCall {
  const void* qkv;               ///< (T, fused columns)
  const void* cache;             ///< (slots, capacity, 2 Hkv D)
  const std::int32_t* slot;      ///< (T)
  const std::int32_t* position;  ///< (T)
  void* out;                     ///< (T, Hq D)
  float* partial;                ///< (T, Hq, splits, D + 2): sums, maximum, total; null for one split
  int query_heads, key_value_heads, head_dim, splits;
  std::int64_t capacity;
  float scale;  ///< of scores, for powers of two

  __device__ int group() const { return query_heads / key_value_heads; }
  __device__ std::int64_t fused_columns() const {
    return std::int64_t{query_heads + 2 * key_value_heads} * head_dim;
  }
  __device__ float* partial_of(std::int64_t row, int head, int split) const {
    return partial + ((row * query_heads + head) * splits + split) * (head_dim + 2);
  }
};

/// How a head lies in the lanes of a team: in packets, or, for sizes that don't fit those, strided.
template <int LANES, bool PACKETS>
struct Team {
  static constexpr int elements = LANES * per_lane;

  __device__ static int element(int lane, int k) { return PACKETS ? lane * per_lane + k : lane + k * LANES; }

  template <class T>
  __device__ static Packet<per_lane> load(const T* head, int lane, int size) {
    if constexpr (PACKETS) {
      return Packet<per_lane>::load(head + lane * per_lane);
    } else {
      Packet<per_lane> packet;
#pragma unroll
      for (int k = 0; k < per_lane; ++k)
        packet.value[k] = element(lane, k) < size ? widen(head[element(lane, k)]) : 0.0f;
      return packet;
    }
  }

  __device__ static float sum(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
      value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
  }
};

/// One query head's softmax over the entries seen so far.
struct Softmax {
  float largest = lowest, total = 0;
  float sum[per_lane] = {};

  __device__ void rescale(float to) {
    const float factor = exp2f(largest - to);
    largest = to;
    total *= factor;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) sum[k] *= factor;
  }
  /// Joins those of the teams of a warp.
  template <int LANES>
  __device__ void join_teams() {
#pragma unroll
    for (int offset = LANES; offset < 32; offset *= 2) {
      rescale(fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset)));
      total += __shfl_xor_sync(0xffffffffu, total, offset);
#pragma unroll
      for (int k = 0; k < per_lane; ++k) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], offset);
    }
  }
};

template <class T, int LANES, bool PACKETS, int HEADS>
__global__ __launch_bounds__(threads) void attend_kernel(const CachedCall call) {
  using Lanes = Team<LANES, PACKETS>;
  constexpr int teams = threads / LANES;
  constexpr int in_flight = HEADS > 4 ? 2 : 4;  // entries of a team under way at once
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t row = blockIdx.x;
  const int slot = call.slot[row];
  if (slot < 0 && call.partial) return;  // the splits' join writes the zeros
  const int size = call.head_dim, group = call.group();
  const int chunks = (group + HEADS - 1) / HEADS, kv_head = blockIdx.y / chunks,
            first_head = blockIdx.y % chunks * HEADS, heads = min(HEADS, group - first_head);
  const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;

  const T* queries = static_cast<const T*>(call.qkv) + row * call.fused_columns() +
                     std::int64_t{kv_head * group + first_head} * size;
  Packet<per_lane> query[HEADS];
#pragma unroll
  for (int h = 0; h < HEADS; ++h) {
    query[h] = Lanes::load(queries + min(h, heads - 1) * size, lane, size);
#pragma unroll
    for (int k = 0; k < per_lane; ++k) query[h].value[k] *= call.scale;
  }

  // Each split has its share of the entries; padding has none.
  const int entries = slot < 0 ? 0 : call.position[row] + 1;
  const int each = (entries + call.splits - 1) / call.splits;
  const int begin = blockIdx.z * each, end = min(begin + each, entries);
  const std::int64_t entry_size = std::int64_t{2 * call.key_value_heads} * size;
  const T* keys = static_cast<const T*>(call.cache) + max(slot, 0) * call.capacity * entry_size +
                  std::int64_t{kv_head} * size;
  const std::int64_t to_value = std::int64_t{call.key_value_heads} * size;
  Softmax softmax[HEADS];
  // All lanes of a warp go round together: they exchange scores.
  for (int first = begin; first < end; first += teams * in_flight) {
    Packet<per_lane> key[in_flight], value[in_flight];
#pragma unroll
    for (int i = 0; i < in_flight; ++i) {
      const T* at = keys + min(first + i * teams + team, end - 1) * entry_size;
      key[i] = Lanes::load(at, lane, size);
      value[i] = Lanes::load(at + to_value, lane, size);
    }
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      float score[in_flight], largest = softmax[h].largest;
#pragma unroll
      for (int i = 0; i < in_flight; ++i) {
        float dot = 0;
#pragma unroll
        for (int k = 0; k < per_lane; ++k) dot = fmaf(query[h].value[k], key[i].value[k], dot);
        score[i] = Lanes::sum(dot);
        if (first + i * teams + team >= end) score[i] = -INFINITY;
        largest = fmaxf(largest, score[i]);
      }
      softmax[h].rescale(largest);
#pragma unroll
      for (int i = 0; i < in_flight; ++i) {
        const float weight = exp2f(score[i] - largest);
        softmax[h].total += weight;
#pragma unroll
        for (int k = 0; k < per_lane; ++k)
          softmax[h].sum[k] = fmaf(weight, value[i].value[k], softmax[h].sum[k]);
      }
    }
  }

  __shared__ float sums[warps][HEADS][Lanes::elements];
  __shared__ float largests[warps][HEADS], totals[warps][HEADS];
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int h = 0; h < HEADS; ++h) {
    softmax[h].template join_teams<LANES>();
    if (threadIdx.x % 32 >= LANES) continue;
#pragma unroll
    for (int k = 0; k < per_lane; ++k) sums[warp][h][Lanes::element(lane, k)] = softmax[h].sum[k];
    if (lane == 0) {
      largests[warp][h] = softmax[h].largest;
      totals[warp][h] = softmax[h].total;
    }
  }
  __syncthreads();

  for (int i = threadIdx.x; i < heads * size; i += threads) {
    const int h = i / size, element = i % size, head = kv_head * group + first_head + h;
    float largest = lowest, total = 0, sum = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) largest = fmaxf(largest, largests[w][h]);
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const float factor = exp2f(largests[w][h] - largest);
      total += totals[w][h] * factor;
      sum += sums[w][h][element] * factor;
    }
    if (call.partial) {
      float* partial = call.partial_of(row, head, blockIdx.z);
      partial[element] = sum;
      if (element == 0) partial[size] = largest;
      if (element == 0) partial[size + 1] = total;
    } else {
      T* out = static_cast<T*>(call.out) + (row * call.query_heads + head) * size;
      out[element] = narrow<T>(slot < 0 ? 0.0f : sum / total);
    }
  }
}

/// A block joins the splits of one row's query head.
template <class T>
__global__ __launch_bounds__(threads) void join_kernel(const CachedCall call) {
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t row = blockIdx.x;
  const int head = blockIdx.y, size = call.head_dim;
  T* out = static_cast<T*>(call.out) + (row * call.query_heads + head) * size;
  const bool padding = call.slot[row] < 0;
  for (int element = threadIdx.x; element < size; element += threads) {
    float largest = lowest, total = 0, sum = 0;
    for (int split = 0; split < call.splits && !padding; ++split)
      largest = fmaxf(largest, call.partial_of(row, head, split)[size]);
    for (int split = 0; split < call.splits && !padding; ++split) {
      const float* partial = call.partial_of(row, head, split);
      const float factor = exp2f(partial[size] - largest);
      total += partial[size + 1] * factor;
      sum += partial[element] * factor;
    }
    out[element] = narrow<T>(padding ? 0.0f : sum / total);
  }
}

/// Query heads a block takes, of `group` that share a key-value head.
int heads_of_block(std::int64_t group) {
  return group > 4 ? 8 : group > 2 ? 4 : static_cast<int>(group);
}

/// Blocks that fill the GPU.
std::int64_t wanted_blocks(const GpuTraits& gpu) {
  return std::int64_t{4} * gpu.multiprocessors;
}

int splits_of(const GpuTraits& gpu, std::int64_t blocks, std::int64_t capacity) {
  if (blocks >= wanted_blocks(gpu)) return 1;
  const std::int64_t worth = std::max<std::int64_t>(1, capacity / least_entries);
  return static_cast<int>(std::min(divide_up(wanted_blocks(gpu), blocks), worth));
}

template <class F>
void with_heads(int heads, F&& f) {
  if (heads == 1)
    f.template operator()<1>();
  else if (heads == 2)
    f.template operator()<2>();
  else if (heads == 4)
    f.template operator()<4>();
  else
    f.template operator()<8>();
}

/// Calls f<lanes of a team, whether they hold packets>().
template <class F>
void with_team(const Tensor& qkv, const Tensor& cache, int size, F&& f) {
  const auto aligned = [](const Tensor& t) { return reinterpret_cast<std::uintptr_t>(t.data()) % 16 == 0; };
  const bool packets = aligned(qkv) && aligned(cache);
  if (packets && size == 64)
    f.template operator()<8, true>();
  else if (packets && size == 128)
    f.template operator()<16, true>();
  else if (packets && size == 256)
    f.template operator()<32, true>();
  else
    f.template operator()<32, false>();
}

}  // namespace

std::size_t attention_cached_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  const AttentionShape& shape = request.attention;
  if (shape.key_value_heads == 0) return 0;
  // Less than one more split than wanted, for each of the blocks that are fewer than wanted.
  Scratch scratch;
  scratch.take<float>(2 * wanted_blocks(gpu) * heads_of_block(shape.query_heads / shape.key_value_heads) *
                          (shape.head_dim + 2),
                      "");
  return scratch.used();
}

void CudaKernels::do_attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                                      const Tensor& cache, const Tensor& out, Stream& stream) {
  LLAMA3D_EXPECT(shape.head_dim <= largest_head_dim, "head size {}, at most {} on GPUs", shape.head_dim,
                 largest_head_dim);
  if (qkv.rows() == 0) return;
  const std::int64_t group = shape.query_heads / shape.key_value_heads;
  const int block_heads = heads_of_block(group);
  const std::int64_t teams_of_heads = shape.key_value_heads * divide_up<std::int64_t>(group, block_heads);
  const int splits = splits_of(gpu_, qkv.rows() * teams_of_heads, cache.shape()[1]);
  Scratch scratch(workspace_);
  float* partial = splits > 1
                       ? scratch.take<float>(qkv.rows() * shape.query_heads * splits * (shape.head_dim + 2),
                                             "attention_cached")
                       : nullptr;
  const CachedCall call{
      .qkv = qkv.data(),
      .cache = cache.data(),
      .slot = elements<std::int32_t>(rows.slot),
      .position = elements<std::int32_t>(rows.position),
      .out = out.data(),
      .partial = partial,
      .query_heads = static_cast<int>(shape.query_heads),
      .key_value_heads = static_cast<int>(shape.key_value_heads),
      .head_dim = static_cast<int>(shape.head_dim),
      .splits = splits,
      .capacity = cache.shape()[1],
      .scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(shape.head_dim)))};
  const auto row_count = static_cast<unsigned>(qkv.rows());
  const dim3 grid(row_count, static_cast<unsigned>(teams_of_heads), static_cast<unsigned>(splits));
  with_type(qkv.dtype(), [&]<class T>() {
    with_team(qkv, cache, call.head_dim, [&]<int LANES, bool PACKETS>() {
      with_heads(block_heads, [&]<int HEADS>() {
        launch_dependent(attend_kernel<T, LANES, PACKETS, HEADS>, grid, threads, handle_of(stream), call);
      });
    });
    if (splits > 1)
      launch_dependent(join_kernel<T>, dim3(row_count, static_cast<unsigned>(call.query_heads)), threads,
                       handle_of(stream), call);
  });
  check_launch("attention_cached", qkv.shape());
}

}  // namespace llama3d::cuda
