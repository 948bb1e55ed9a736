#pragma once
// What the tensor-parallel operations of a rank share: the machine, the tp group and two exchange buffers.
//
// Sequence parallelism (Korthikanti et al., 2022): the residual stream and its norms hold only 1/tp of the
// rows, a "shard" of (T/tp, C); products between them see all T rows, "full".

#include "compute/kernels.hpp"
#include "mpi/communicator.hpp"

namespace llama3d {

class TensorParallel {
 public:
  /// `exchange`: (T, C) compute, scratch for gathered inputs and partial outputs; may be empty when the group
  /// is one rank, where shard and full are the same tensor and nothing is exchanged.
  TensorParallel(Kernels& kernels, Stream& stream, Communicator& group, Tensor exchange)
      : kernels_(&kernels), stream_(&stream), group_(&group), exchange_(exchange) {}

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  Kernels& kernels() const { return *kernels_; }
  Stream& stream() const { return *stream_; }
  Communicator& group() const { return *group_; }

  /// All rows of `shard`: (T/tp, C) -> (T, C), in the exchange buffer, or `shard` itself in a group of one.
  /// Valid until the next call that uses the exchange buffer.
  Tensor gather(const Tensor& shard, Label label) const { return gather(shard, exchange_, label); }
  /// The same into `full`, which a group of one leaves untouched.
  Tensor gather(const Tensor& shard, const Tensor& full, Label label) const;

  /// Where a product should write its partial sums over all rows, to be reduced into `shard` by
  /// reduce_scatter.
  Tensor partial(const Tensor& shard) const;
  /// shard = this rank's rows of the sum over the group of `partial`.
  void reduce_scatter(const Tensor& partial, const Tensor& shard, Label label) const;

 private:
  Kernels* kernels_;
  Stream* stream_;
  Communicator* group_;
  Tensor exchange_;
};

}  // namespace llama3d
