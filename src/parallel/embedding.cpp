#include "parallel/embedding.hpp"

#include "comm/labels.hpp"

namespace llama3d {

void VocabularyParallelEmbedding::forward(const Tensor& ids, const Tensor& x) const {
  const Tensor partial = tp_->all_rows(x);
  tp_->kernels().embedding_forward(ids, table_.value, first_id_, partial, tp_->stream());
  tp_->reduce_scatter(partial, x, labels::tp_embedding);
}

void VocabularyParallelEmbedding::backward(const Tensor& ids, const Tensor& dx,
                                           PendingWeightGradients pending) const {
  PendingRows rows = tp_->start_gather(dx, tp_->all_rows(dx), labels::tp_embedding);
  pending.compute(tp_->kernels(), tp_->stream());
  rows.wait();
  tp_->kernels().embedding_backward(ids, rows.full(), first_id_, table_.gradient, tp_->stream());
}

}  // namespace llama3d
