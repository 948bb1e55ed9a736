// Stands in where the build has no code for sm_90a.

#include <stdexcept>

#include "cuda/attention/attention_kernels.hpp"

namespace llama3d::cuda {

bool has_wgmma_code() {
  return false;
}
void attention_forward_wgmma(const AttentionCall&, int, cudaStream_t) {
  throw std::logic_error("attention_forward_wgmma in a build without it");
}
void attention_backward_wgmma(const AttentionCall&, cudaStream_t) {
  throw std::logic_error("attention_backward_wgmma in a build without it");
}

}  // namespace llama3d::cuda
