#pragma once
// Element types of files turned into those of memory.

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace llama3d::io {

/// Element types that files have: those of memory, and IEEE binary16.
enum class StoredType : std::uint8_t { fp32, bf16, fp64, int32, fp16 };
StoredType stored_type(DType dtype);
std::size_t size_of(StoredType type);

/// Converts `count` elements. Equal types are copied; floating-point types are rounded to nearest even.
/// Throws IoError between integers and floats. The ranges must not overlap.
void convert_elements(const void* from, StoredType from_type, void* to, DType to_dtype, std::size_t count);
void convert_elements(const void* from, DType from_dtype, void* to, DType to_dtype, std::size_t count);

/// IEEE binary16, exactly.
float float_of_fp16(std::uint16_t bits);

}  // namespace llama3d::io
