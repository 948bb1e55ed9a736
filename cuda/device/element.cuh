#pragma once
// Elements in kernels: fp32 and bf16 in memory, fp32 in registers, moved in packets of 16 bytes or one by
// one.

#include <cuda_bf16.h>

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "compute/tensor.hpp"

namespace llama3d::cuda {

using Bf16 = __nv_bfloat16;

__device__ __forceinline__ float widen(float value) {
  return value;
}
__device__ __forceinline__ float widen(Bf16 value) {
  return __bfloat162float(value);
}

/// Rounds to nearest even.
template <class T>
__device__ __forceinline__ T narrow(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return __float2bfloat16_rn(value);
}

/// `value` as it is after a round trip through T.
template <class T>
__device__ __forceinline__ float rounded(float value) {
  return widen(narrow<T>(value));
}

/// Elements of the widest packet; tensors whose rows are a multiple of this move in packets.
inline constexpr int packet_size = 8;

/// N (8 or 1) neighbouring elements, widened. `p` must be aligned to N elements.
template <int N>
struct Packet {
  float value[N];

  template <class T>
  __device__ __forceinline__ static Packet load(const T* p) {
    Packet packet;
    if constexpr (N == 1)
      packet.value[0] = widen(*p);
    else
      packet.read(p);
    return packet;
  }

  template <class T>
  __device__ __forceinline__ void store(T* p) const {
    if constexpr (N == 1)
      *p = narrow<T>(value[0]);
    else
      write(p);
  }

 private:
  __device__ __forceinline__ void read(const float* p) {
    const auto* halves = reinterpret_cast<const float4*>(p);
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
      const float4 half = halves[i];
      value[4 * i] = half.x;
      value[4 * i + 1] = half.y;
      value[4 * i + 2] = half.z;
      value[4 * i + 3] = half.w;
    }
  }
  __device__ __forceinline__ void read(const Bf16* p) {
    unpack(*reinterpret_cast<const uint4*>(p));
  }
  __device__ __forceinline__ void write(float* p) const {
#pragma unroll
    for (int i = 0; i < N / 4; ++i)
      reinterpret_cast<float4*>(p)[i] = {value[4 * i], value[4 * i + 1], value[4 * i + 2], value[4 * i + 3]};
  }
  __device__ __forceinline__ void write(Bf16* p) const {
    *reinterpret_cast<uint4*>(p) = pack();
  }
  __device__ __forceinline__ void unpack(const uint4& raw) {
    const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      value[2 * i] = __uint_as_float(words[i] << 16);
      value[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
  __device__ __forceinline__ uint4 pack() const {
    std::uint32_t words[4];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(value[2 * i], value[2 * i + 1]);
      words[i] = reinterpret_cast<const std::uint32_t&>(pair);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

/// A packet as it lies in memory: what a thread holds of data that it will need later.
template <class T>
struct RawPacket {
  static constexpr int words_count = packet_size * sizeof(T) / 16;
  uint4 words[words_count];

  __device__ __forceinline__ static RawPacket load(const T* p) {
    RawPacket raw;
#pragma unroll
    for (int i = 0; i < words_count; ++i) raw.words[i] = reinterpret_cast<const uint4*>(p)[i];
    return raw;
  }
  __device__ __forceinline__ Packet<packet_size> widened() const {
    return Packet<packet_size>::load(reinterpret_cast<const T*>(words));
  }
};

// --- from tensors to types, on the host --------------------------------------------------------------------

/// The elements as the device sees them.
template <class T>
T* elements(const Tensor& tensor) {
  return static_cast<T*>(tensor.data());
}

/// Calls f<float>() or f<Bf16>(). Another type that Kernels let through has no kernels yet: a
/// ContractViolation.
template <class F>
void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::fp32: return f.template operator()<float>();
    case DType::bf16: return f.template operator()<Bf16>();
    case DType::fp64:
    case DType::int32: break;
  }
  throw ContractViolation(fmt::format("no kernel takes {}", name_of(dtype)));
}

/// Calls f<8>() where `tensors`, used in runs of `columns` elements, can move in packets, f<1>() otherwise.
template <class F>
void with_packet(std::int64_t columns, std::initializer_list<const Tensor*> tensors, F&& f) {
  bool packets = columns % packet_size == 0;
  for (const Tensor* tensor : tensors)
    packets &=
        reinterpret_cast<std::uintptr_t>(tensor->data()) % (packet_size * size_of(tensor->dtype())) == 0;
  if (packets)
    f.template operator()<packet_size>();
  else
    f.template operator()<1>();
}

}  // namespace llama3d::cuda
