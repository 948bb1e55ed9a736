#pragma once
// The JSON header of a safetensors file. For the files of this module, and for tests that damage it.

#include <cstdint>
#include <string_view>
#include <vector>

#include "io/safetensors/safetensors.hpp"

namespace llama3d::io {

struct SafetensorsPlace {
  SafetensorsTensor tensor;
  std::int64_t begin = 0, end = 0;  ///< bytes, counted from the end of the header
};

/// Throws IoError unless every tensor has a known type, a shape and a place that fit each other, and the
/// places fill the file's `data_bytes` without gaps or overlaps.
std::vector<SafetensorsPlace> parse_safetensors_header(std::string_view json, std::int64_t data_bytes);

}  // namespace llama3d::io
