#pragma once
// Weight gradients are needed by nothing before the optimizer step, so they are computed while communication
// is under way that they hide.

#include <utility>
#include <vector>

#include "compute/kernels.hpp"
#include "parallel/parameter_store.hpp"

namespace llama3d {

/// The gradients of a linear operation's parameters: dw += dy^T x, tensors as in
/// Kernels::linear_backward_weight, and db += the sum of dy's rows unless that is empty.
struct WeightGradient {
  Tensor dy, x, dw, db;

  void compute(Kernels& kernels, Stream& stream) const;
};

/// Weight gradients that a layer's backward pass leaves to the next one, which computes them behind its first
/// communication. What they read must stay as it is until then.
class PendingWeightGradients {
 public:
  void add(const WeightGradient& gradient) { gradients_.push_back(gradient); }
  /// Releases a group's gradients when those added so far are computed.
  void add_release(ParameterStore& store, std::size_t group, bool complete) {
    releases_.push_back({&store, group, complete});
  }
  bool empty() const { return gradients_.empty() && releases_.empty(); }
  /// All of them, in their order; nothing is pending afterwards.
  void compute(Kernels& kernels, Stream& stream);

 private:
  struct Release {
    ParameterStore* store;
    std::size_t group;
    bool complete;
  };
  std::vector<WeightGradient> gradients_;
  std::vector<Release> releases_;
};

}  // namespace llama3d
