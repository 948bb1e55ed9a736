#include "io/checkpoint/convert.hpp"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "io/posix/posix_file.hpp"

namespace llama3d::io {
namespace {

/// Bits of a binary16 number.
struct fp16 {
  std::uint16_t bits = 0;
};

template <class From, class To>
void convert_loop(const void* from, void* to, std::size_t count) {
  // Unaligned on purpose: files promise no alignment.
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  for (std::size_t i = 0; i < count; ++i) {
    From element;
    std::memcpy(&element, source + i * sizeof(From), sizeof(From));
    To result;
    if constexpr (std::is_same_v<From, double> && std::is_same_v<To, bf16>) {
      // By way of fp32: rounded twice, which only matters exactly half way between two bf16 numbers.
      result = To(static_cast<float>(element));
    } else if constexpr (std::is_same_v<From, fp16>) {
      result = To(float_of_fp16(element.bits));
    } else if constexpr (std::is_same_v<From, bf16>) {
      result = To(static_cast<float>(element));
    } else {
      result = To(element);
    }
    std::memcpy(target + i * sizeof(To), &result, sizeof(To));
  }
}

template <class From>
bool convert_from(const void* from, void* to, DType to_dtype, std::size_t count) {
  switch (to_dtype) {
    case DType::fp32: convert_loop<From, float>(from, to, count); return true;
    case DType::bf16: convert_loop<From, bf16>(from, to, count); return true;
    case DType::fp64: convert_loop<From, double>(from, to, count); return true;
    case DType::int32: return false;
  }
  return false;
}

}  // namespace

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::fp32: return StoredType::fp32;
    case DType::bf16: return StoredType::bf16;
    case DType::fp64: return StoredType::fp64;
    case DType::int32: return StoredType::int32;
  }
  throw IoError("unknown element type");
}

std::size_t size_of(StoredType type) {
  switch (type) {
    case StoredType::fp32:
    case StoredType::int32: return 4;
    case StoredType::bf16:
    case StoredType::fp16: return 2;
    case StoredType::fp64: return 8;
  }
  return 0;
}

void convert_elements(const void* from, StoredType from_type, void* to, DType to_dtype, std::size_t count) {
  if (count == 0) return;  // pointers may be null then
  if (from_type == stored_type(to_dtype)) {
    std::memcpy(to, from, count * size_of(from_type));
    return;
  }
  bool done = false;
  switch (from_type) {
    case StoredType::fp32: done = convert_from<float>(from, to, to_dtype, count); break;
    case StoredType::bf16: done = convert_from<bf16>(from, to, to_dtype, count); break;
    case StoredType::fp64: done = convert_from<double>(from, to, to_dtype, count); break;
    case StoredType::fp16: done = convert_from<fp16>(from, to, to_dtype, count); break;
    case StoredType::int32: break;
  }
  if (!done) throw IoError(fmt::format("integers are not converted to {} or back", name_of(to_dtype)));
}

void convert_elements(const void* from, DType from_dtype, void* to, DType to_dtype, std::size_t count) {
  convert_elements(from, stored_type(from_dtype), to, to_dtype, count);
}

float float_of_fp16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace llama3d::io
