// Beside the projections of attention in some models: a bias on their output, and RMSNorm of every query and
// key head by itself.

#include <algorithm>
#include <cmath>

#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {
namespace {

/// Adds the partial sums of `parts` threads, each `stride` apart, to the gradient (n).
template <class G>
void add_parts(const float* sums, int parts, std::int64_t stride, G* total, std::int64_t n) {
  for (std::int64_t c = 0; c < n; ++c) {
    float sum = 0;
    for (int part = 0; part < parts; ++part) sum += sums[part * stride + c];
    total[c] = narrow<G>(widen(total[c]) + sum);
  }
}

/// Keeps a head as it was and normalizes it in place; returns rstd.
template <class T>
float normalize_head(T* head, const T* w, float epsilon, T* raw, std::int64_t n) {
  float squares = 0;
  for (std::int64_t i = 0; i < n; ++i) squares += widen(head[i]) * widen(head[i]);
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon);
  for (std::int64_t i = 0; i < n; ++i) {
    raw[i] = head[i];
    head[i] = narrow<T>(widen(narrow<T>(widen(raw[i]) * rstd)) * widen(w[i]));
  }
  return rstd;
}

/// inout d: the gradient behind the norm in, before it out; dw gains that of the weights.
template <class T>
void normalize_head_backward(T* d, const T* raw, const T* w, float rstd, float* dw, std::int64_t n) {
  float projection = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const float gradient = widen(d[i]), normalized = widen(raw[i]) * rstd;
    projection += gradient * widen(w[i]) * normalized;
    dw[i] += gradient * widen(narrow<T>(normalized));
  }
  const float mean = projection / static_cast<float>(n);
  for (std::int64_t i = 0; i < n; ++i)
    d[i] = narrow<T>(rstd * (widen(d[i]) * widen(w[i]) - widen(raw[i]) * rstd * mean));
}

}  // namespace

std::int64_t heads_scratch(const WorkspaceRequest& request, int threads) {
  Scratch count;
  if (request.qkv_bias) count.take(threads * request.attention.fused_columns(), "");
  Scratch norms;
  if (request.head_norm) norms.take(threads * 2 * request.attention.head_dim, "");
  return std::max(count.used(), norms.used());
}

void HostKernels::do_add_bias(const Tensor& y, const Tensor& b, Stream&) {
  const std::int64_t n = y.columns();
  with_type(y.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, y.rows(), rows_grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* row = elements<T>(y) + t * n;
        for (std::int64_t c = 0; c < n; ++c) row[c] = narrow<T>(widen(row[c]) + widen(elements<T>(b)[c]));
      }
    });
  });
}

void HostKernels::do_bias_backward(const Tensor& dy, const Tensor& db, Stream&) {
  const std::int64_t n = dy.columns();
  if (dy.rows() == 0) return;
  float* sums = scratch().take(threads_ * n, "bias_backward");
  with_type(dy.dtype(), [&]<class T>(T) {
    const int parts = parallel_parts(threads_, dy.rows(), rows_grain(n),
                                     [&](int part, std::int64_t begin, std::int64_t end) {
                                       float* own = sums + part * n;
                                       std::fill_n(own, n, 0.0f);
                                       for (std::int64_t t = begin; t < end; ++t)
                                         for (std::int64_t c = 0; c < n; ++c)
                                           own[c] += widen(elements<T>(dy)[t * n + c]);
                                     });
    with_type(db.dtype(), [&]<class G>(G) { add_parts(sums, parts, n, elements<G>(db), n); });
  });
}

void HostKernels::do_head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon,
                                       const AttentionShape& shape, const Tensor& raw, const Tensor& rstd,
                                       Stream&) {
  const std::int64_t heads = shape.query_heads + shape.key_value_heads, size = shape.head_dim;
  with_type(qkv.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, qkv.rows(), rows_grain(heads * size),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t)
                        for (std::int64_t h = 0; h < heads; ++h)
                          elements<float>(rstd)[t * heads + h] =
                              normalize_head(elements<T>(qkv) + t * shape.fused_columns() + h * size,
                                             elements<T>(h < shape.query_heads ? wq : wk), epsilon,
                                             elements<T>(raw) + (t * heads + h) * size, size);
                    });
  });
}

void HostKernels::do_head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq,
                                        const Tensor& wk, const Tensor& rstd, const AttentionShape& shape,
                                        const Tensor& dwq, const Tensor& dwk, Stream&) {
  const std::int64_t heads = shape.query_heads + shape.key_value_heads, size = shape.head_dim;
  if (dqkv.rows() == 0) return;
  float* sums = scratch().take(threads_ * 2 * size, "head_norm_backward");  // of queries, then of keys
  with_type(dqkv.dtype(), [&]<class T>(T) {
    const int parts = parallel_parts(
        threads_, dqkv.rows(), rows_grain(heads * size), [&](int part, std::int64_t begin, std::int64_t end) {
          float* own = sums + part * 2 * size;
          std::fill_n(own, 2 * size, 0.0f);
          for (std::int64_t t = begin; t < end; ++t)
            for (std::int64_t h = 0; h < heads; ++h) {
              const bool query = h < shape.query_heads;
              normalize_head_backward(elements<T>(dqkv) + t * shape.fused_columns() + h * size,
                                      elements<T>(raw) + (t * heads + h) * size, elements<T>(query ? wq : wk),
                                      elements<float>(rstd)[t * heads + h], own + (query ? 0 : size), size);
            }
        });
    with_type(dwq.dtype(), [&]<class G>(G) {
      add_parts(sums, parts, 2 * size, elements<G>(dwq), size);
      add_parts(sums + size, parts, 2 * size, elements<G>(dwk), size);
    });
  });
}

}  // namespace llama3d::host
