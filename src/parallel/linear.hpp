#pragma once
// Linear layers split over the tp group, as in Megatron-LM (Shoeybi et al., 2019) with sequence parallelism.

#include "parallel/deferred_work.hpp"
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
  /// Starts to bring all rows of x to `full`.
  RowExchange gather(const Tensor& x, const Tensor& full) const;
  /// dx: (T/tp, K) from dy: (T, N/tp), reduced while `others` run; where there are none, behind the product,
  /// in blocks.
  void backward_input(const Tensor& dy, const Tensor& dx, DeferredWork& others) const;
  /// Accumulates the weight gradient. x: (T, K), all rows.
  void backward_weight(const Tensor& dy, const Tensor& x) const;

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
  /// dx: (T, K/tp) from dy: (T/tp, N), whose rows are gathered while `others` run. Returns all rows of dy,
  /// for backward_weight: in `full` (T, N), or dy itself where that is empty, as it may be in a group of one.
  Tensor backward_input(const Tensor& dy, const Tensor& full, const Tensor& dx, DeferredWork& others) const;
  /// Accumulates the weight gradient. dy: (T, N).
  void backward_weight(const Tensor& dy, const Tensor& x) const;

 private:
  const TensorParallel* tp_;
  WeightTensors weight_;
};

}  // namespace llama3d
