#pragma once
// Linear layers split over the tp group, as in Megatron-LM (Shoeybi et al., 2019) with sequence parallelism.

#include "parallel/pending_gradients.hpp"
#include "parallel/tensor_parallel.hpp"

namespace llama3d {

/// A weight's local shard and the gradient accumulated for it.
struct WeightTensors {
  Tensor value;     ///< compute
  Tensor gradient;  ///< gradient dtype, same shape
};

/// Output features split: w is (N/tp, K), a bias (N/tp). The input arrives as a shard of rows, the output has
/// all rows.
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(const TensorParallel& tp, WeightTensors weight, WeightTensors bias = {})
      : tp_(&tp), weight_(weight), bias_(bias) {}

  /// y: (T, N/tp) from x: (T/tp, K), whose rows are gathered in `full` (T, K).
  void forward(const Tensor& x, const Tensor& full, const Tensor& y) const;
  /// Starts to bring all rows of x to `full`.
  PendingRows gather(const Tensor& x, const Tensor& full) const;
  /// dx: (T/tp, K) from dy: (T, N/tp), reduced while `pending` is computed.
  void backward_input(const Tensor& dy, const Tensor& dx, PendingWeightGradients pending) const;
  /// The same where nothing is pending: each block is reduced behind the GEMM of the next one.
  void backward_input_in_blocks(const Tensor& dy, const Tensor& dx) const;
  /// x: (T, K), all rows.
  WeightGradient weight_gradient(const Tensor& dy, const Tensor& x) const {
    return {dy, x, weight_.gradient, bias_.gradient};
  }

 private:
  const TensorParallel* tp_;
  WeightTensors weight_, bias_;
};

/// Input features split: w is (N, K/tp). The input has all rows, the output leaves as a shard of rows.
class RowParallelLinear {
 public:
  RowParallelLinear(const TensorParallel& tp, WeightTensors weight) : tp_(&tp), weight_(weight) {}

  /// y: (T/tp, N) from x: (T, K/tp).
  void forward(const Tensor& x, const Tensor& y) const;
  /// dx: (T, K/tp) from dy: (T/tp, N), whose rows are gathered while `pending` is computed. Returns all rows
  /// of dy, for weight_gradient: in `full` (T, N), or dy itself where that is empty, as it may be in a group
  /// of one.
  Tensor backward_input(const Tensor& dy, const Tensor& full, const Tensor& dx,
                        PendingWeightGradients pending) const;
  /// dy: (T, N), all rows.
  WeightGradient weight_gradient(const Tensor& dy, const Tensor& x) const {
    return {dy, x, weight_.gradient, {}};
  }

 private:
  const TensorParallel* tp_;
  WeightTensors weight_;
};

}  // namespace llama3d
