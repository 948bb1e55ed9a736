#include "cuda/attention/sm90/tensor_map.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "cuda/device/check.hpp"

namespace llama3d::cuda {
namespace {

/// The driver's library is not linked: a machine may have none.
auto encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  check(status, "asking the driver for tensor maps");
  if (found != cudaDriverEntryPointSuccess)
    throw Error(ExitStatus::failure, "this GPU's driver knows no tensor maps");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

}  // namespace

CUtensorMap map_matrix(const void* data, std::int64_t rows, std::int64_t columns, int box_rows) {
  static const auto encode = encode_function();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, row_bytes, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error(ExitStatus::failure, fmt::format("no tensor map for {} rows of {} columns (driver error {})",
                                                 rows, columns, static_cast<int>(status)));
  return map;
}

}  // namespace llama3d::cuda
