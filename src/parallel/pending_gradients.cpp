#include "parallel/pending_gradients.hpp"

namespace llama3d {

void WeightGradient::compute(Kernels& kernels, Stream& stream) const {
  kernels.linear_backward_weight(dy, x, dw, stream);
  if (db) kernels.bias_backward(dy, db, stream);
}

void PendingWeightGradients::compute(Kernels& kernels, Stream& stream) {
  for (const WeightGradient& gradient : std::exchange(gradients_, {})) gradient.compute(kernels, stream);
  for (const auto& [store, group, complete] : std::exchange(releases_, {}))
    store->release_gradients(group, complete);
}

}  // namespace llama3d
