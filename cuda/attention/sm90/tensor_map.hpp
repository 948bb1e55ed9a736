#pragma once
// What bulk copies know of a matrix in global memory (CUDA driver API, tensor maps; sm_90 and up).

#include <cuda.h>

#include <cstdint>

namespace llama3d::cuda {

/// A bf16 matrix of `rows` x `columns`, row after row, from which boxes of 64 columns and `box_rows` (at most
/// 256) rows are copied in the layout of SlabTile (wgmma.cuh). Throws Error.
CUtensorMap map_matrix(const void* data, std::int64_t rows, std::int64_t columns, int box_rows);

}  // namespace llama3d::cuda
