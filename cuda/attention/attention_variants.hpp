#pragma once
// The ways to compute attention, looked up by GPU, dtype and head size. The kernels of each are in a folder
// of its own.

#include <cuda_runtime_api.h>

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/device/gpu_traits.hpp"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {

struct AttentionForward {
  const char* name;
  bool (*suits)(const GpuTraits& gpu, DType dtype, std::int64_t head_dim);
  void (*run)(const AttentionCall& call, DType dtype, const GpuTraits& gpu, cudaStream_t stream);
};

struct AttentionBackward {
  const char* name;
  bool (*suits)(const GpuTraits& gpu, DType dtype, std::int64_t head_dim);
  /// Takes what a call of so many rows needs beside delta and dq, and notes it in `call`. Also to measure it.
  void (*take_scratch)(Scratch& scratch, const GpuTraits& gpu, std::int64_t rows, const AttentionShape& shape,
                       AttentionCall& call);
  void (*run)(const AttentionCall& call, DType dtype, cudaStream_t stream);
};

/// The first entry that suits; the last one suits everything.
const AttentionForward& attention_forward_for(const GpuTraits& gpu, DType dtype, std::int64_t head_dim);
const AttentionBackward& attention_backward_for(const GpuTraits& gpu, DType dtype, std::int64_t head_dim);

}  // namespace llama3d::cuda
