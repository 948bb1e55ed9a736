// Attention for any even head size, fp32 or bf16, one warp a row of queries or of keys: simple, exact, and
// slow on long sequences. Every sum has a fixed order.

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/reduce.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 128;
constexpr int warps = threads / 32;
/// Elements of a head that a lane holds: elements lane, lane + 32, ...
constexpr int per_lane = largest_head_dim / 32;

/// One head's vector, spread over a warp.
struct Vector {
  float value[per_lane];

  template <class T>
  __device__ static Vector load(const T* p, int size) {
    Vector v;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      const int d = i * 32 + threadIdx.x % 32;
      v.value[i] = d < size ? widen(p[d]) : 0.0f;
    }
    return v;
  }
  template <class T>
  __device__ void store(T* p, int size, float factor) const {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      const int d = i * 32 + threadIdx.x % 32;
      if (d < size) p[d] = narrow<T>(value[i] * factor);
    }
  }
  __device__ static Vector zero() {
    Vector v;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) v.value[i] = 0;
    return v;
  }
  __device__ float dot(const Vector& other) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) sum = fmaf(value[i], other.value[i], sum);
    return warp_reduce(sum, Sum());
  }
  __device__ void add(float factor, const Vector& other) {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) value[i] = fmaf(factor, other.value[i], value[i]);
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < per_lane; ++i) value[i] *= factor;
  }
};

/// Where the heads of a fused row lie.
template <class T>
struct Rows {
  const T* qkv;
  int size, query_heads, key_value_heads;
  std::int64_t stride;

  explicit Rows(const AttentionCall& call)
      : qkv(static_cast<const T*>(call.qkv)),
        size(call.head_dim),
        query_heads(call.query_heads),
        key_value_heads(call.key_value_heads),
        stride(call.fused_columns()) {}
  __device__ int group() const { return query_heads / key_value_heads; }
  __device__ Vector query(int row, int head) const {
    return Vector::load(qkv + row * stride + head * size, size);
  }
  __device__ Vector key(int row, int kv_head) const {
    return Vector::load(qkv + row * stride + (query_heads + kv_head) * size, size);
  }
  __device__ Vector value(int row, int kv_head) const {
    return Vector::load(qkv + row * stride + (query_heads + key_value_heads + kv_head) * size, size);
  }
};

template <class T>
__global__ __launch_bounds__(threads) void forward_kernel(const AttentionCall call, const Rows<T> rows) {
  const int row = blockIdx.x * warps + threadIdx.x / 32, head = blockIdx.y;
  if (row >= call.rows) return;
  const int kv_head = head / rows.group();
  const Vector q = rows.query(row, head);
  Vector sum = Vector::zero();
  float largest = -INFINITY, total = 0;
  for (int key = call.start[row]; key <= row; ++key) {
    const float score = q.dot(rows.key(key, kv_head)) * call.scale;
    if (score > largest) {
      const float factor = expf(largest - score);
      sum.scale(factor);
      total *= factor;
      largest = score;
    }
    const float weight = expf(score - largest);
    total += weight;
    sum.add(weight, rows.value(key, kv_head));
  }
  sum.store(static_cast<T*>(call.out) + row * call.output_columns() + head * rows.size, rows.size, 1 / total);
  if (threadIdx.x % 32 == 0)
    call.lse[static_cast<std::int64_t>(head) * call.rows + row] = largest + logf(total);
}

/// delta[h][t].
template <class T>
__global__ __launch_bounds__(threads) void delta_kernel(const AttentionCall call, int size) {
  const int row = blockIdx.x * warps + threadIdx.x / 32, head = blockIdx.y;
  if (row >= call.rows) return;
  const std::int64_t offset = row * call.output_columns() + head * size;
  const float sum = Vector::load(static_cast<const T*>(call.out) + offset, size)
                        .dot(Vector::load(static_cast<const T*>(call.dout) + offset, size));
  if (threadIdx.x % 32 == 0) call.delta[static_cast<std::int64_t>(head) * call.rows + row] = sum;
}

/// What a pair of query and key gives the gradients: the softmax weight and d(score).
template <class T>
struct Pair {
  float weight, dscore;
  __device__ Pair(const AttentionCall& call, const Vector& q, const Vector& k, const Vector& v,
                  const Vector& dout, int row, int head) {
    const std::int64_t at = static_cast<std::int64_t>(head) * call.rows + row;
    weight = expf(q.dot(k) * call.scale - call.lse[at]);
    dscore = weight * (dout.dot(v) - call.delta[at]) * call.scale;
  }
};

template <class T>
__global__ __launch_bounds__(threads) void query_gradient_kernel(const AttentionCall call,
                                                                 const Rows<T> rows) {
  const int row = blockIdx.x * warps + threadIdx.x / 32, head = blockIdx.y;
  if (row >= call.rows) return;
  const int kv_head = head / rows.group();
  const Vector q = rows.query(row, head);
  const Vector dout = Vector::load(
      static_cast<const T*>(call.dout) + row * call.output_columns() + head * rows.size, rows.size);
  Vector dq = Vector::zero();
  for (int key = call.start[row]; key <= row; ++key) {
    const Vector k = rows.key(key, kv_head);
    dq.add(Pair<T>(call, q, k, rows.value(key, kv_head), dout, row, head).dscore, k);
  }
  dq.store(static_cast<T*>(call.dqkv) + row * rows.stride + head * rows.size, rows.size, 1);
}

template <class T>
__global__ __launch_bounds__(threads) void key_gradient_kernel(const AttentionCall call, const Rows<T> rows) {
  const int key = blockIdx.x * warps + threadIdx.x / 32, kv_head = blockIdx.y;
  if (key >= call.rows) return;
  const Vector k = rows.key(key, kv_head), v = rows.value(key, kv_head);
  Vector dk = Vector::zero(), dv = Vector::zero();
  for (int head = kv_head * rows.group(); head < (kv_head + 1) * rows.group(); ++head)
    for (int row = key; row < call.end[key]; ++row) {
      const Vector q = rows.query(row, head);
      const Vector dout = Vector::load(
          static_cast<const T*>(call.dout) + row * call.output_columns() + head * rows.size, rows.size);
      const Pair<T> pair(call, q, k, v, dout, row, head);
      dk.add(pair.dscore, q);
      dv.add(pair.weight, dout);
    }
  T* gradient = static_cast<T*>(call.dqkv) + key * rows.stride + (rows.query_heads + kv_head) * rows.size;
  dk.store(gradient, rows.size, 1);
  dv.store(gradient + rows.key_value_heads * rows.size, rows.size, 1);
}

dim3 grid_of(const AttentionCall& call, int heads) {
  return dim3((call.rows + warps - 1) / warps, heads);
}

}  // namespace

void attention_forward_plain(const AttentionCall& call, DType dtype, cudaStream_t stream) {
  with_type(dtype, [&]<class T>() {
    forward_kernel<T><<<grid_of(call, call.query_heads), threads, 0, stream>>>(call, Rows<T>(call));
  });
}

void attention_backward_plain(const AttentionCall& call, DType dtype, cudaStream_t stream) {
  with_type(dtype, [&]<class T>() {
    delta_kernel<T><<<grid_of(call, call.query_heads), threads, 0, stream>>>(call, call.head_dim);
    query_gradient_kernel<T><<<grid_of(call, call.query_heads), threads, 0, stream>>>(call, Rows<T>(call));
    key_gradient_kernel<T><<<grid_of(call, call.key_value_heads), threads, 0, stream>>>(call, Rows<T>(call));
  });
}

}  // namespace llama3d::cuda
