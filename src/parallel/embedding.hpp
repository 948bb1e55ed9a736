#pragma once

#include "parallel/linear.hpp"

namespace llama3d {

/// Token embedding with the vocabulary's rows split over the tp group.
class VocabularyParallelEmbedding {
 public:
  /// `first_id`: the vocabulary id of the local shard's first row.
  VocabularyParallelEmbedding(const TensorParallel& tp, WeightTensors table, std::int64_t first_id)
      : tp_(&tp), table_(table), first_id_(first_id) {}

  /// x: (T/tp, C) from ids: (T) int32.
  void forward(const Tensor& ids, const Tensor& x) const;
  /// Accumulates the table's gradient from dx: (T/tp, C), whose rows are gathered while `pending` is
  /// computed.
  void backward(const Tensor& ids, const Tensor& dx, PendingWeightGradients pending) const;

 private:
  const TensorParallel* tp_;
  WeightTensors table_;
  std::int64_t first_id_;
};

}  // namespace llama3d
