#include "parallel/loss_head.hpp"

#include <algorithm>

#include "comm/labels.hpp"

namespace llama3d {

LossHeadBuffers LossHeadBuffers::take(Arena& arena, DType compute, std::int64_t rows, std::int64_t hidden,
                                      std::int64_t local_vocabulary, int tp, std::size_t logits_bytes) {
  const auto row_bytes = static_cast<std::int64_t>(size_of(compute)) * local_vocabulary;
  LossHeadBuffers buffers;
  buffers.chunk_rows = std::clamp<std::int64_t>(static_cast<std::int64_t>(logits_bytes) / row_bytes, 1,
                                                std::max<std::int64_t>(rows, 1));
  buffers.logits = arena.take(compute, {buffers.chunk_rows, local_vocabulary});
  buffers.statistics = arena.take(DType::fp32, {tp, buffers.chunk_rows, 3});
  buffers.losses = arena.take(DType::fp32, {rows});
  if (tp > 1) buffers.gathered = arena.take(compute, {rows, hidden});
  return buffers;
}

void VocabularyParallelLossHead::for_each_chunk(
    std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& body) const {
  for (std::int64_t begin = 0; begin < rows; begin += buffers_.chunk_rows)
    body(begin, std::min(rows, begin + buffers_.chunk_rows));
}

Tensor VocabularyParallelLossHead::chunk_loss(const Tensor& y, const Tensor& targets, std::int64_t begin,
                                              std::int64_t end, bool gradient, const Tensor& totals) const {
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  const std::int64_t rows = end - begin;
  const Tensor logits = buffers_.logits.slice(0, rows);
  const Tensor chunk_targets = targets.slice(begin, end);
  kernels.linear_forward(y.slice(begin, end), weight_.value, logits, stream);

  // Every shard's statistics, (tp, rows, 3): the local ones are written in place.
  const Tensor all = buffers_.statistics.flat().slice(0, tp_->size() * rows * 3);
  const Tensor local = all.slice(tp_->rank() * rows * 3, (tp_->rank() + 1) * rows * 3);
  kernels.cross_entropy_statistics(logits, chunk_targets, first_id_, columns_, local.reshape({rows, 3}),
                                   stream);
  tp_->group().all_gather(local, all, labels::tp_loss, stream)->wait(stream);
  kernels.cross_entropy_finish(logits, chunk_targets, first_id_, columns_,
                               all.reshape({tp_->size(), rows, 3}), gradient,
                               buffers_.losses.slice(begin, end), totals, stream);
  return logits;
}

void VocabularyParallelLossHead::loss(const Tensor& y, const Tensor& targets, const Tensor& totals) const {
  const Tensor full = tp_->gather(y, buffers_.gathered, labels::tp_all_gather_input);
  for_each_chunk(full.rows(),
                 [&](auto begin, auto end) { chunk_loss(full, targets, begin, end, false, totals); });
}

void VocabularyParallelLossHead::loss_and_gradient(const Tensor& y, const Tensor& targets,
                                                   const Tensor& totals, const Tensor& dy) const {
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  const Tensor full = tp_->gather(y, buffers_.gathered, labels::tp_all_gather_input);
  const Tensor partial = tp_->all_rows(dy);
  for_each_chunk(full.rows(), [&](auto begin, auto end) {
    const Tensor dlogits = chunk_loss(full, targets, begin, end, true, totals);
    kernels.linear_backward_input(dlogits, weight_.value, partial.slice(begin, end), stream);
    kernels.linear_backward_weight(dlogits, full.slice(begin, end), weight_.gradient, stream);
  });
  tp_->reduce_scatter(partial, dy, labels::tp_reduce_scatter_gradient);
}

void VocabularyParallelLossHead::visit_logits(
    const Tensor& y, const std::function<void(std::int64_t, const Tensor&)>& visit) const {
  const Tensor full = tp_->gather(y, buffers_.gathered, labels::tp_all_gather_input);
  for_each_chunk(full.rows(), [&](auto begin, auto end) {
    const Tensor logits = buffers_.logits.slice(0, end - begin);
    tp_->kernels().linear_forward(full.slice(begin, end), weight_.value, logits, tp_->stream());
    visit(begin, logits);
  });
}

}  // namespace llama3d
