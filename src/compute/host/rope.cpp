// Rotary position embedding: a head's elements i and i + D/2 rotate by the angle of (position, i).

#include "compute/host/checks.hpp"
#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {
namespace {

template <class T>
void rotate_head(T* head, const float* cosine, const float* sine, float direction, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = widen(head[i]), b = widen(head[i + half]);
    const float c = cosine[i], s = sine[i] * direction;
    head[i] = narrow<T>(a * c - b * s);
    head[i + half] = narrow<T>(b * c + a * s);
  }
}

/// Rotates the query and key heads of every row; direction -1 turns back.
void rotate(int threads, const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
            const AttentionShape& shape, float direction) {
  const std::int64_t rows = qkv.rows(), columns = shape.fused_columns(), size = shape.head_dim;
  expect_positions(documents, table.rows());
  const std::int32_t* position = elements<std::int32_t>(documents.position);
  const std::int64_t heads = shape.query_heads + shape.key_value_heads, half = size / 2;
  with_type(qkv.dtype(), [&]<class T>(T) {
    parallel_ranges(threads, rows, rows_grain(heads * size), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float* angles = elements<float>(table) + position[t] * size;
        T* row = elements<T>(qkv) + t * columns;
        for (std::int64_t h = 0; h < heads; ++h) {
          rotate_head(row + h * size, angles, angles + half, direction, half);
        }
      }
    });
  });
}

}  // namespace

void HostKernels::do_rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                                  const AttentionShape& shape, Stream&) {
  rotate(threads_, qkv, documents, table, shape, 1.0f);
}

void HostKernels::do_rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                                   const AttentionShape& shape, Stream&) {
  rotate(threads_, dqkv, documents, table, shape, -1.0f);
}

}  // namespace llama3d::host
