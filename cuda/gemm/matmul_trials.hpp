#pragma once
// Which of cuBLASLt's algorithms is fastest in training: timed on a chip as hot as training makes it.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace llama3d::cuda {

/// Queues one product with the given algorithm.
using MatmulCall = std::function<cublasStatus_t(const cublasLtMatmulAlgo_t& algorithm)>;

/// The algorithm whose calls, one after another on `stream`, take the least time; waits for the stream.
/// `hot`: where a product draws so much power that the clock follows, it is timed until that settles, seconds
/// instead of tens of milliseconds. `product` names the product in errors. An algorithm that does not run is
/// left out; throws when none runs.
cublasLtMatmulAlgo_t fastest_algorithm(const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                       const MatmulCall& call, bool hot, cudaStream_t stream,
                                       const std::string& product);

}  // namespace llama3d::cuda
