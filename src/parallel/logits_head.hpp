#pragma once

#include "parallel/tensor_parallel.hpp"

namespace llama3d {

/// Output head of inference, with the vocabulary split over the tp group.
class VocabularyParallelLogits {
 public:
  /// `weight`: (V/tp, C) compute.
  VocabularyParallelLogits(const TensorParallel& tp, const Tensor& weight) : tp_(&tp), weight_(weight) {}

  /// logits: (tp, T, V/tp) compute, those of every shard, from x: (T, C), all rows of it on every rank.
  void forward(const Tensor& x, const Tensor& logits) const;

 private:
  const TensorParallel* tp_;
  Tensor weight_;
};

}  // namespace llama3d
