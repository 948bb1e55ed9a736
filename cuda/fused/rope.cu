// Rotary position embedding: a head's elements i and i + D/2 rotate by the angle of (position, i).

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 160;  // 40 heads of 128 are 320 packets of pairs: two a thread

/// Pieces of N pairs that a thread has under way at once.
constexpr int in_flight = 2;

/// A thread rotates in_flight pieces; neighbours take neighbouring pieces of a head, then heads, then rows.
template <int N, class T>
__global__ __launch_bounds__(threads) void rotate_kernel(T* qkv, const std::int32_t* position,
                                                         const float* table, int rows, int heads, int size,
                                                         int columns, float direction) {
  grid_dependency_launch();
  grid_dependency_wait();
  const int half = size / 2, pieces = half / N, items = heads * pieces;  // items of a row
  T* at[in_flight];
  const float* angles[in_flight];
  Packet<N> a[in_flight], b[in_flight];
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const int item = (blockIdx.y * in_flight + i) * threads + threadIdx.x, row = blockIdx.x;
    at[i] = nullptr;
    if (item >= items || row >= rows) continue;
    const int head = item / pieces, first = item % pieces * N;
    at[i] = qkv + static_cast<std::int64_t>(row) * columns + head * size + first;
    angles[i] = table + static_cast<std::int64_t>(position[row]) * size + first;
    a[i] = Packet<N>::load(at[i]);
    b[i] = Packet<N>::load(at[i] + half);
  }
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    if (!at[i]) continue;
    const auto cosine = Packet<N>::load(angles[i]), sine = Packet<N>::load(angles[i] + half);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float c = cosine.value[k], s = sine.value[k] * direction, x = a[i].value[k], y = b[i].value[k];
      a[i].value[k] = x * c - y * s;
      b[i].value[k] = y * c + x * s;
    }
    a[i].store(at[i]);
    b[i].store(at[i] + half);
  }
}

void rotate(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
            const AttentionShape& shape, float direction, Stream& stream) {
  if (qkv.rows() == 0) return;
  const auto heads = static_cast<int>(shape.query_heads + shape.key_value_heads);
  with_type(qkv.dtype(), [&]<class T>() {
    with_packet(shape.head_dim / 2, {&qkv, &table}, [&]<int N>() {
      const dim3 grid(static_cast<unsigned>(qkv.rows()),
                      blocks_for(heads * shape.head_dim / 2 / N, in_flight * threads));
      launch_dependent(rotate_kernel<N, T>, grid, threads, handle_of(stream), elements<T>(qkv),
                       elements<std::int32_t>(documents.position), elements<float>(table),
                       static_cast<int>(qkv.rows()), heads, static_cast<int>(shape.head_dim),
                       static_cast<int>(shape.fused_columns()), direction);
    });
  });
  check_launch("rope", qkv.shape());
}

}  // namespace

void CudaKernels::do_rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                                  const AttentionShape& shape, Stream& stream) {
  rotate(qkv, documents, table, shape, 1.0f, stream);
}

void CudaKernels::do_rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                                   const AttentionShape& shape, Stream& stream) {
  rotate(dqkv, documents, table, shape, -1.0f, stream);
}

}  // namespace llama3d::cuda
