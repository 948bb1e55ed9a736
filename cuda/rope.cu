// Rotary position embedding: a head's elements i and i + D/2 rotate by the angle of (position, i).

#include "compute/contracts.hpp"
#include "cuda/check.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/cuda_stream.hpp"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256;

/// A block rotates one row. A thread keeps the angles of its N pairs of a head and walks over the heads.
template <int N, class T>
__global__ __launch_bounds__(threads) void rotate_kernel(T* qkv, const std::int32_t* position,
                                                         const float* table, int heads, int size,
                                                         std::int64_t columns, float direction) {
  const int half = size / 2, pieces = half / N;  // pieces of half a head
  const int piece = threadIdx.x % pieces, i = piece * N;
  const int heads_at_once = threads / pieces, first_head = threadIdx.x / pieces;
  if (first_head >= heads_at_once) return;
  T* row = qkv + static_cast<std::int64_t>(blockIdx.x) * columns;
  const float* angles = table + static_cast<std::int64_t>(position[blockIdx.x]) * size;
  const auto cosine = Packet<N>::load(angles + i), sine = Packet<N>::load(angles + half + i);
#pragma unroll 4
  for (int head = first_head; head < heads; head += heads_at_once) {
    T* at = row + head * size + i;
    auto a = Packet<N>::load(at), b = Packet<N>::load(at + half);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float c = cosine.value[k], s = sine.value[k] * direction, x = a.value[k], y = b.value[k];
      a.value[k] = x * c - y * s;
      b.value[k] = y * c + x * s;
    }
    a.store(at);
    b.store(at + half);
  }
}

void rotate(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
            const AttentionShape& shape, float direction, Stream& stream) {
  contracts::rope(qkv, documents, table, shape);
  LLAMA3D_EXPECT(shape.head_dim / 2 <= threads, "head size {}, at most {}", shape.head_dim, 2 * threads);
  if (qkv.rows() == 0) return;
  with_type(qkv.dtype(), [&]<class T>() {
    with_packet(shape.head_dim / 2, {&qkv, &table}, [&]<int N>() {
      rotate_kernel<N><<<static_cast<unsigned>(qkv.rows()), threads, 0, handle_of(stream)>>>(
          elements<T>(qkv), elements<std::int32_t>(documents.position), elements<float>(table),
          static_cast<int>(shape.query_heads + shape.key_value_heads), static_cast<int>(shape.head_dim),
          shape.fused_columns(), direction);
    });
  });
  check_launch("rope", qkv.shape());
}

}  // namespace

void CudaKernels::rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                               const AttentionShape& shape, Stream& stream) {
  rotate(qkv, documents, table, shape, 1.0f, stream);
}

void CudaKernels::rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                                const AttentionShape& shape, Stream& stream) {
  rotate(dqkv, documents, table, shape, -1.0f, stream);
}

}  // namespace llama3d::cuda
