#include "parallel/linear.hpp"

#include "comm/labels.hpp"

namespace llama3d {

PendingRows ColumnParallelLinear::gather(const Tensor& x, const Tensor& full) const {
  return tp_->start_gather(x, full, labels::tp_all_gather_input);
}

void ColumnParallelLinear::forward(const Tensor& x, const Tensor& full, const Tensor& y) const {
  PendingRows rows = gather(x, full);
  for (int block = 0; block < tp_->blocks(); ++block) {
    rows.wait(block);
    tp_->kernels().linear_forward(tp_->block_of(rows.full(), block), weight_.value, tp_->block_of(y, block),
                                  tp_->stream());
  }
  if (bias_.value) tp_->kernels().add_bias(y, bias_.value, tp_->stream());
}

void ColumnParallelLinear::backward_input(const Tensor& dy, const Tensor& dx,
                                          PendingWeightGradients pending) const {
  const Tensor partial = tp_->all_rows(dx);
  tp_->kernels().linear_backward_input(dy, weight_.value, partial, tp_->stream());
  PendingRows reduction = tp_->start_reduction(partial, dx, labels::tp_reduce_scatter_gradient);
  pending.compute(tp_->kernels(), tp_->stream());
  reduction.wait();
}

void ColumnParallelLinear::backward_input_in_blocks(const Tensor& dy, const Tensor& dx) const {
  const Tensor partial = tp_->all_rows(dx);
  PendingRows reduction(partial, tp_->blocks(), tp_->stream());
  for (int block = 0; block < tp_->blocks(); ++block) {
    tp_->kernels().linear_backward_input(tp_->block_of(dy, block), weight_.value,
                                         tp_->block_of(partial, block), tp_->stream());
    tp_->start_reduction(reduction, block, dx, labels::tp_reduce_scatter_gradient);
  }
  reduction.wait();
}

void RowParallelLinear::forward(const Tensor& x, const Tensor& y) const {
  PendingRows partial(tp_->all_rows(y), tp_->blocks(), tp_->stream());
  for (int block = 0; block < tp_->blocks(); ++block) {
    tp_->kernels().linear_forward(tp_->block_of(x, block), weight_.value,
                                  tp_->block_of(partial.full(), block), tp_->stream());
    tp_->start_reduction(partial, block, y, labels::tp_reduce_scatter_output);
  }
  partial.wait();
}

Tensor RowParallelLinear::backward_input(const Tensor& dy, const Tensor& full, const Tensor& dx,
                                         PendingWeightGradients pending) const {
  if (tp_->size() == 1) {
    LLAMA3D_EXPECT(pending.empty(), "weight gradients pending where nothing is communicated");
    if (full) tp_->kernels().copy(dy, full, tp_->stream());
    const Tensor all = full ? full : dy;
    tp_->kernels().linear_backward_input(all, weight_.value, dx, tp_->stream());
    return all;
  }
  PendingRows gathered = tp_->start_gather(dy, full, labels::tp_all_gather_gradient);
  pending.compute(tp_->kernels(), tp_->stream());
  for (int block = 0; block < tp_->blocks(); ++block) {
    gathered.wait(block);
    tp_->kernels().linear_backward_input(tp_->block_of(gathered.full(), block), weight_.value,
                                         tp_->block_of(dx, block), tp_->stream());
  }
  return gathered.full();
}

}  // namespace llama3d
