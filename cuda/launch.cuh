#pragma once
// Grid sizes.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace llama3d::cuda {

template <class T>
constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}

/// Blocks for `items` items, `each` a block.
inline unsigned blocks_for(std::int64_t items, std::int64_t each) {
  return static_cast<unsigned>(std::max<std::int64_t>(1, divide_up(items, each)));
}

}  // namespace llama3d::cuda
