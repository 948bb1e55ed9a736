#pragma once
// Element by element kernels that other operations of this module use.

#include <cuda_runtime_api.h>

#include "compute/tensor.hpp"

namespace llama3d::cuda {

/// inout sum += in, fp32 or bf16 each, added in fp32 and rounded once.
void accumulate(const Tensor& in, const Tensor& sum, cudaStream_t stream);

}  // namespace llama3d::cuda
