#pragma once
// Output head and cross entropy with the vocabulary split over the tp group, in chunks of rows so that the
// logits of all tokens never exist at once. Forward and backward in one pass: the loss is a plain sum over
// targets, so its gradient needs nothing from later.

#include <functional>

#include "compute/arena.hpp"
#include "parallel/linear.hpp"

namespace llama3d {

/// Scratch tensors of the head, for rows of all T tokens in chunks.
struct LossHeadBuffers {
  Tensor logits;      ///< (chunk, V/tp) compute
  Tensor statistics;  ///< (tp, chunk, 3) fp32, every shard's
  Tensor losses;      ///< (T) fp32
  Tensor gathered;    ///< (T, C) compute, normed hidden states of all rows; empty in a group of one
  std::int64_t chunk_rows = 0;

  /// Chunks of about `logits_bytes`, at least 1 row.
  static LossHeadBuffers take(Arena& arena, DType compute, std::int64_t rows, std::int64_t hidden,
                              std::int64_t local_vocabulary, int tp, std::size_t logits_bytes);
};

class VocabularyParallelLossHead {
 public:
  /// `columns`: vocabulary ids of the local shard that exist; the rest is padding.
  VocabularyParallelLossHead(const TensorParallel& tp, WeightTensors weight, std::int64_t first_id,
                             std::int64_t columns, LossHeadBuffers buffers)
      : tp_(&tp), weight_(weight), first_id_(first_id), columns_(columns), buffers_(buffers) {}

  /// inout totals (2) fp64 gains the sum of losses and the number of targets, the same on every rank of the
  /// group. y: (T/tp, C), targets: (T) int32.
  void loss(const Tensor& y, const Tensor& targets, const Tensor& totals) const;
  /// The same, and dy: (T/tp, C) = d(sum of losses)/dy, and the weight gradient is accumulated.
  void loss_and_gradient(const Tensor& y, const Tensor& targets, const Tensor& totals,
                         const Tensor& dy) const;
  /// Calls `visit(first_row, logits)` for each chunk of (rows, V/tp) local logits of y.
  void visit_logits(const Tensor& y, const std::function<void(std::int64_t, const Tensor&)>& visit) const;

  /// Losses of the rows of the last call: (T) fp32.
  const Tensor& losses() const { return buffers_.losses; }

 private:
  /// One chunk: logits, joined statistics, losses; leaves d(logits) in place when `gradient`.
  Tensor chunk_loss(const Tensor& y, const Tensor& targets, std::int64_t begin, std::int64_t end,
                    bool gradient, const Tensor& totals) const;
  void for_each_chunk(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& body) const;

  const TensorParallel* tp_;
  WeightTensors weight_;
  std::int64_t first_id_;
  std::int64_t columns_;
  LossHeadBuffers buffers_;
};

}  // namespace llama3d
