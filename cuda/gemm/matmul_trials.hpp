#pragma once
// Which of cuBLASLt's algorithms is fastest in training: timed at the clock that training leaves.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace llama3d::cuda {

/// Queues one GEMM with the given algorithm.
using MatmulCall = std::function<cublasStatus_t(const cublasLtMatmulAlgo_t& algorithm)>;

/// The algorithm whose calls, one after another on `stream`, take the least time; waits for the stream.
/// `settle`: where a GEMM draws so much power that the clock follows, it is timed until that settles, seconds
/// instead of tens of milliseconds. `gemm` names it in errors. An algorithm that does not run is
/// left out; throws when none runs.
cublasLtMatmulAlgo_t fastest_algorithm(const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                       const MatmulCall& call, bool settle, cudaStream_t stream,
                                       const std::string& gemm);

}  // namespace llama3d::cuda
