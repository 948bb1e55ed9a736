#pragma once
// Every status of the CUDA runtime and of cuBLASLt is checked here. A failure is an Error that says which
// operation failed, on what shape, where in the source and why.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <source_location>
#include <string_view>

#include "compute/tensor.hpp"

namespace llama3d::cuda {

/// Throws Error unless the call succeeded. `operation` is what was being done, in words.
void check(cudaError_t status, std::string_view operation,
           std::source_location where = std::source_location::current());
void check(cublasStatus_t status, std::string_view operation,
           std::source_location where = std::source_location::current());

/// The kernel launched just before, of `operation` on a tensor of `shape`.
void check_launch(std::string_view operation, const Shape& shape,
                  std::source_location where = std::source_location::current());

}  // namespace llama3d::cuda
