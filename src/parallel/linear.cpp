#include "parallel/linear.hpp"

#include "mpi/labels.hpp"

namespace llama3d {

void ColumnParallelLinear::forward(const Tensor& x, const Tensor& y) const {
  const Tensor full = tp_->gather(x, labels::tp_all_gather_input);
  tp_->kernels().linear_forward(full, weight_.value, y, tp_->stream());
}

void ColumnParallelLinear::backward_input(const Tensor& dy, const Tensor& dx) const {
  const Tensor partial = tp_->partial(dx);
  tp_->kernels().linear_backward_input(dy, weight_.value, partial, tp_->stream());
  tp_->reduce_scatter(partial, dx, labels::tp_reduce_scatter_gradient);
}

void ColumnParallelLinear::backward_weight(const Tensor& dy, const Tensor& x) const {
  const Tensor full = tp_->gather(x, labels::tp_all_gather_input);
  tp_->kernels().linear_backward_weight(dy, full, weight_.gradient, tp_->stream());
}

void RowParallelLinear::forward(const Tensor& x, const Tensor& y) const {
  const Tensor partial = tp_->partial(y);
  tp_->kernels().linear_forward(x, weight_.value, partial, tp_->stream());
  tp_->reduce_scatter(partial, y, labels::tp_reduce_scatter_output);
}

void RowParallelLinear::backward_input(const Tensor& dy, const Tensor& dx) const {
  tp_->kernels().linear_backward_input(dy, weight_.value, dx, tp_->stream());
}

void RowParallelLinear::backward_weight(const Tensor& dy, const Tensor& x) const {
  tp_->kernels().linear_backward_weight(dy, x, weight_.gradient, tp_->stream());
}

}  // namespace llama3d
