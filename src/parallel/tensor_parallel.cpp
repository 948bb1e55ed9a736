#include "parallel/tensor_parallel.hpp"

namespace llama3d {

Tensor TensorParallel::gather(const Tensor& shard, const Tensor& full, Label label) const {
  if (size() == 1) return shard;
  const Tensor out = full.reshape({shard.rows() * size(), shard.columns()});
  group_->all_gather(shard, out, label, *stream_)->wait(*stream_);
  return out;
}

Tensor TensorParallel::partial(const Tensor& shard) const {
  return size() == 1 ? shard : exchange_.reshape({shard.rows() * size(), shard.columns()});
}

void TensorParallel::reduce_scatter(const Tensor& partial, const Tensor& shard, Label label) const {
  if (size() == 1) return;
  group_->reduce_scatter(partial, shard, label, *stream_)->wait(*stream_);
}

}  // namespace llama3d
