#pragma once
// Linear layers split over the tp group, as in Megatron-LM (Shoeybi et al., 2019) with sequence parallelism.

#include "parallel/tensor_parallel.hpp"

namespace llama3d {

/// A weight's local shard and the gradient accumulated for it.
struct WeightTensors {
  Tensor value;     ///< compute
  Tensor gradient;  ///< gradient dtype, same shape
};

/// Output features split: w is (N/tp, K). The input arrives as a shard of rows, the output has all rows.
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(const TensorParallel& tp, WeightTensors weight) : tp_(&tp), weight_(weight) {}

  /// y: (T, N/tp) from x: (T/tp, K), whose rows are gathered in `full` (T, K).
  void forward(const Tensor& x, const Tensor& full, const Tensor& y) const;
  /// Starts to bring all rows of x to `full` once more, for the weight gradient.
  RowExchange gather(const Tensor& x, const Tensor& full) const;
  /// dx: (T/tp, K) from dy: (T, N/tp), and the weight gradient is accumulated from all rows of x, which may
  /// be on their way; dx is reduced behind the product that does.
  void backward(const Tensor& dy, RowExchange& x, const Tensor& dx) const;
  /// The two halves of a split backward.
  void backward_input(const Tensor& dy, const Tensor& dx) const;
  void backward_weight(const Tensor& dy, RowExchange& x) const;

 private:
  const TensorParallel* tp_;
  WeightTensors weight_;
};

/// Input features split: w is (N, K/tp). The input has all rows, the output leaves as a shard of rows.
class RowParallelLinear {
 public:
  RowParallelLinear(const TensorParallel& tp, WeightTensors weight) : tp_(&tp), weight_(weight) {}

  /// y: (T/tp, N) from x: (T, K/tp).
  void forward(const Tensor& x, const Tensor& y) const;
  /// dx: (T, K/tp) from dy: (T/tp, N). Returns all rows of dy, for backward_weight: in `full` (T, N), or dy
  /// itself where that is empty, as it may be in a group of one.
  Tensor backward_input(const Tensor& dy, const Tensor& full, const Tensor& dx) const;
  /// Accumulates the weight gradient. dy: (T, N).
  void backward_weight(const Tensor& dy, const Tensor& x) const;

 private:
  const TensorParallel* tp_;
  WeightTensors weight_;
};

}  // namespace llama3d
