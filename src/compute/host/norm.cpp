// RMSNorm, alone and behind the residual addition.

#include <cmath>

#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {
namespace {

/// y = round(x * rstd) * w for one row; returns rstd.
template <class T>
float normalize_row(const T* x, const T* w, float epsilon, T* y, std::int64_t n) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t c = 0; c < n; ++c) squares += widen(x[c]) * widen(x[c]);
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon);
#pragma omp simd
  for (std::int64_t c = 0; c < n; ++c) y[c] = narrow<T>(widen(narrow<T>(widen(x[c]) * rstd)) * widen(w[c]));
  return rstd;
}

/// dx = dresidual + rstd (dy w - xhat mean(dy w xhat)) with xhat = x rstd, and dw_row += dy round(xhat).
template <class T>
void normalize_row_backward(const T* dy, const T* x, const T* w, float rstd, const T* dresidual, T* dx,
                            float* dw, std::int64_t n) {
  float projection = 0;
#pragma omp simd reduction(+ : projection)
  for (std::int64_t c = 0; c < n; ++c) {
    const float gradient = widen(dy[c]), normalized = widen(x[c]) * rstd;
    projection += gradient * widen(w[c]) * normalized;
    dw[c] += gradient * widen(narrow<T>(normalized));
  }
  const float mean = projection / static_cast<float>(n);
  if (dresidual) {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      const float inner = widen(dy[c]) * widen(w[c]) - widen(x[c]) * rstd * mean;
      dx[c] = narrow<T>(widen(dresidual[c]) + rstd * inner);
    }
  } else {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      dx[c] = narrow<T>(rstd * (widen(dy[c]) * widen(w[c]) - widen(x[c]) * rstd * mean));
    }
  }
}

/// Adds the partial sums of `parts` threads, each (n), to the gradient.
template <class G>
void add_parts(const float* sums, int parts, G* total, std::int64_t n) {
  for (std::int64_t c = 0; c < n; ++c) {
    float sum = 0;
    for (int part = 0; part < parts; ++part) sum += sums[part * n + c];
    total[c] = narrow<G>(widen(total[c]) + sum);
  }
}

}  // namespace

std::int64_t norm_scratch(const WorkspaceRequest& request, int threads) {
  Scratch count;
  count.take(threads * request.hidden, "");
  return count.used();
}

void HostKernels::do_rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y,
                                      const Tensor& rstd, Stream&) {
  const std::int64_t n = x.columns();
  with_type(x.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, x.rows(), rows_grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        elements<float>(rstd)[t] =
            normalize_row(elements<T>(x) + t * n, elements<T>(w), epsilon, elements<T>(y) + t * n, n);
      }
    });
  });
}

void HostKernels::do_add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w,
                                          float epsilon, const Tensor& sum, const Tensor& y,
                                          const Tensor& rstd, Stream&) {
  const std::int64_t n = residual.columns();
  with_type(residual.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, residual.rows(), rows_grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* a = elements<T>(residual) + t * n;
        const T* b = elements<T>(delta) + t * n;
        T* s = elements<T>(sum) + t * n;
#pragma omp simd
        for (std::int64_t c = 0; c < n; ++c) s[c] = narrow<T>(widen(a[c]) + widen(b[c]));
        elements<float>(rstd)[t] = normalize_row<T>(s, elements<T>(w), epsilon, elements<T>(y) + t * n, n);
      }
    });
  });
}

void HostKernels::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                                       const Tensor& dresidual, const Tensor& dx, const Tensor& dw, Stream&) {
  const std::int64_t n = x.columns();
  if (x.rows() == 0) return;
  float* sums = scratch().take(threads_ * n, "rms_norm_backward");
  with_type(x.dtype(), [&]<class T>(T) {
    const T* around = dresidual ? elements<T>(dresidual) : nullptr;
    const int parts = parallel_parts(
        threads_, x.rows(), rows_grain(n), [&](int part, std::int64_t begin, std::int64_t end) {
          float* own = sums + part * n;
          std::fill_n(own, n, 0.0f);
          for (std::int64_t t = begin; t < end; ++t) {
            normalize_row_backward(elements<T>(dy) + t * n, elements<T>(x) + t * n, elements<T>(w),
                                   elements<float>(rstd)[t], around ? around + t * n : nullptr,
                                   elements<T>(dx) + t * n, own, n);
          }
        });
    with_type(dw.dtype(), [&]<class G>(G) { add_parts(sums, parts, elements<G>(dw), n); });
  });
}

}  // namespace llama3d::host
