#include "parallel/linear.hpp"

#include "mpi/labels.hpp"

namespace llama3d {

void ColumnParallelLinear::forward(const Tensor& x, const Tensor& y) const {
  RowExchange full = tp_->start_gather(x, labels::tp_all_gather_input);
  for (int block = 0; block < tp_->blocks(); ++block) {
    full.wait(block);
    tp_->kernels().linear_forward(tp_->block_of(full.full(), block), weight_.value, tp_->block_of(y, block),
                                  tp_->stream());
  }
}

void ColumnParallelLinear::backward(const Tensor& dy, const Tensor& x, const Tensor& dx) const {
  RowExchange full = tp_->start_gather(x, labels::tp_all_gather_input);
  const Tensor partial = tp_->partial(dx);
  tp_->kernels().linear_backward_input(dy, weight_.value, partial, tp_->stream());
  RowExchange reduction = tp_->start_reduction(partial, dx, labels::tp_reduce_scatter_gradient);
  full.wait();
  tp_->kernels().linear_backward_weight(dy, full.full(), weight_.gradient, tp_->stream());
  reduction.wait();
}

void ColumnParallelLinear::backward_input(const Tensor& dy, const Tensor& dx) const {
  RowExchange partial(tp_->partial(dx), tp_->blocks(), tp_->stream());
  for (int block = 0; block < tp_->blocks(); ++block) {
    tp_->kernels().linear_backward_input(tp_->block_of(dy, block), weight_.value,
                                         tp_->block_of(partial.full(), block), tp_->stream());
    tp_->start_reduction(partial, block, dx, labels::tp_reduce_scatter_gradient);
  }
  partial.wait();
}

void ColumnParallelLinear::backward_weight(const Tensor& dy, const Tensor& x) const {
  const Tensor full = tp_->gather(x, labels::tp_all_gather_input);
  tp_->kernels().linear_backward_weight(dy, full, weight_.gradient, tp_->stream());
}

void RowParallelLinear::forward(const Tensor& x, const Tensor& y) const {
  RowExchange partial(tp_->partial(y), tp_->blocks(), tp_->stream());
  for (int block = 0; block < tp_->blocks(); ++block) {
    tp_->kernels().linear_forward(tp_->block_of(x, block), weight_.value,
                                  tp_->block_of(partial.full(), block), tp_->stream());
    tp_->start_reduction(partial, block, y, labels::tp_reduce_scatter_output);
  }
  partial.wait();
}

Tensor RowParallelLinear::backward_input(const Tensor& dy, const Tensor& full, const Tensor& dx) const {
  if (tp_->size() == 1) {
    if (full) tp_->kernels().copy(dy, full, tp_->stream());
    const Tensor all = full ? full : dy;
    tp_->kernels().linear_backward_input(all, weight_.value, dx, tp_->stream());
    return all;
  }
  RowExchange gathered = tp_->start_gather(dy, full, labels::tp_all_gather_gradient);
  for (int block = 0; block < tp_->blocks(); ++block) {
    gathered.wait(block);
    tp_->kernels().linear_backward_input(tp_->block_of(gathered.full(), block), weight_.value,
                                         tp_->block_of(dx, block), tp_->stream());
  }
  return gathered.full();
}

void RowParallelLinear::backward_weight(const Tensor& dy, const Tensor& x) const {
  tp_->kernels().linear_backward_weight(dy, x, weight_.gradient, tp_->stream());
}

}  // namespace llama3d
