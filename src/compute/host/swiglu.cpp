// SwiGLU: h = silu(gate) * up, silu(g) = g / (1 + e^-g).

#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"
#include "compute/host/vector_math.hpp"

namespace llama3d::host {
namespace {

template <class T>
void activate_row(const T* gate, const T* up, T* h, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = widen(gate[i]);
    // g / (1 + e^-g) rather than g * sigmoid(g): one rounding less, and 0 where e^-g overflows.
    h[i] = narrow<T>(g / (1.0f + exponential(-g)) * widen(up[i]));
  }
}

template <class T>
void activate_row_backward(const T* gate, const T* up, const T* dh, T* dgate, T* dup, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = widen(gate[i]), u = widen(up[i]), d = widen(dh[i]);
    const float s = sigmoid(g);
    dgate[i] = narrow<T>(d * u * s * (1.0f + g * (1.0f - s)));
    dup[i] = narrow<T>(d * g * s);
  }
}

}  // namespace

void HostKernels::do_swiglu_forward(const Tensor& gate_up, const Tensor& h, Stream&) {
  const std::int64_t rows = h.rows(), n = h.columns();
  with_type(h.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(2 * n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* gate = elements<T>(gate_up) + t * 2 * n;
        activate_row(gate, gate + n, elements<T>(h) + t * n, n);
      }
    });
  });
}

void HostKernels::do_swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up,
                                     const Tensor& h, Stream&) {
  const std::int64_t rows = dh.rows(), n = dh.columns();
  with_type(dh.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(2 * n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* gate = elements<T>(gate_up) + t * 2 * n;
        T* dgate = elements<T>(dgate_up) + t * 2 * n;
        if (h) activate_row(gate, gate + n, elements<T>(h) + t * n, n);
        activate_row_backward(gate, gate + n, elements<T>(dh) + t * n, dgate, dgate + n, n);
      }
    });
  });
}

}  // namespace llama3d::host
