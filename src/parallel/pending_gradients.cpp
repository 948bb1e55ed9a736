#include "parallel/pending_gradients.hpp"

namespace llama3d {

void PendingWeightGradients::compute(Kernels& kernels, Stream& stream) {
  for (const auto& [dy, x, dw] : std::exchange(gradients_, {}))
    kernels.linear_backward_weight(dy, x, dw, stream);
  for (const auto& [store, group, complete] : std::exchange(releases_, {}))
    store->release_gradients(group, complete);
}

}  // namespace llama3d
