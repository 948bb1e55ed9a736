#pragma once
// Elements of either storage type as fp32, and the choice of the type at run time.

#include <cstdint>
#include <type_traits>

#include "compute/tensor.hpp"

namespace llama3d::host {

[[gnu::always_inline]] inline float widen(float value) {
  return value;
}
// By reference: passing the struct by value keeps g++ from vectorizing.
[[gnu::always_inline]] inline float widen(const bf16& value) {
  return static_cast<float>(value);
}

template <class T>
[[gnu::always_inline]] inline T narrow(float value) {
  return T(value);
}

/// Elements whose dtype the caller has checked.
template <class T>
[[gnu::always_inline]] inline T* elements(const Tensor& tensor) {
  return static_cast<T*>(tensor.data());
}

template <class T>
void widen_row(const T* in, float* out, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = widen(in[i]);
}

template <class T>
void narrow_row(const float* in, T* out, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = narrow<T>(in[i]);
}

/// f(float{}) or f(bf16{}). Another type that Kernels let through has no code yet: a ContractViolation.
template <class F>
void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::fp32: return f(float{});
    case DType::bf16: return f(bf16{});
    case DType::fp64:
    case DType::int32: break;
  }
  throw ContractViolation(fmt::format("no kernel takes {}", name_of(dtype)));
}

}  // namespace llama3d::host
