#pragma once
// What the tensor-parallel operations of a rank share: the machine, the tp group and a buffer for partial
// sums.
//
// Sequence parallelism (Korthikanti et al., 2022): the residual stream and its norms hold only 1/tp of the
// rows, a "shard" of (T/tp, C); GEMMs between them see all T rows, "full".
//
// Rows travel in blocks, so that the GEMM of one block runs while the next is on its way: block b of full
// is T/blocks rows, of which each rank's shard has 1/tp, as its own block b. The residual stream's operations
// take rows one by one, so the order of rows in a shard matters to nothing else.

#include <vector>

#include "comm/communicator.hpp"
#include "compute/kernels.hpp"

namespace llama3d {

/// Rows of a full tensor being gathered or reduced, or there already.
class PendingRows {
 public:
  /// Of nothing.
  PendingRows() = default;
  /// In a group of one nothing is under way and there is one block.
  PendingRows(Tensor full, int blocks, Stream& stream) : full_(full), stream_(&stream), works_(blocks) {}

  const Tensor& full() const { return full_; }
  void started(int block, WorkHandle work) { works_[static_cast<std::size_t>(block)] = std::move(work); }
  /// Later work on the stream may use the block, or all of them.
  void wait(int block);
  void wait();

 private:
  Tensor full_;
  Stream* stream_ = nullptr;
  std::vector<WorkHandle> works_;
};

/// How communication of the tp group is hidden behind GEMMs.
struct TensorParallelOverlap {
  bool enabled = true;  ///< otherwise the stream waits for each operation at once
  int blocks = 1;       ///< must divide the rows of a shard
};

class TensorParallel {
 public:
  /// `scratch`: (T, C) compute; may be empty when the group is one rank, where shard and full are the same
  /// tensor and nothing is exchanged.
  TensorParallel(Kernels& kernels, Stream& stream, Communicator& group, Tensor scratch)
      : kernels_(&kernels), stream_(&stream), group_(&group), scratch_(scratch) {}

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  Kernels& kernels() const { return *kernels_; }
  Stream& stream() const { return *stream_; }
  Communicator& group() const { return *group_; }
  void set_overlap(TensorParallelOverlap overlap) { overlap_ = overlap; }

  int blocks() const { return size() == 1 ? 1 : overlap_.blocks; }
  /// Rows of block b of any tensor with all rows.
  Tensor block_of(const Tensor& full, int block) const;

  /// Starts to bring all rows of `shard`, (T/tp, C) -> (T, C), to `full`; a group of one takes `shard`
  /// itself.
  PendingRows start_gather(const Tensor& shard, const Tensor& full, Label label) const;
  /// The same, waited for.
  Tensor gather(const Tensor& shard, const Tensor& full, Label label) const;

  /// Scratch for all rows of which `shard` is a part, such as partial sums to be reduced into it. Valid until
  /// the next operation that asks for it.
  Tensor all_rows(const Tensor& shard) const;
  /// Starts: shard = this rank's rows of the sum over the group of `partial`, one block or all.
  void start_reduction(PendingRows& rows, int block, const Tensor& shard, Label label) const;
  PendingRows start_reduction(const Tensor& partial, const Tensor& shard, Label label) const;
  /// The same, waited for.
  void reduce_scatter(const Tensor& partial, const Tensor& shard, Label label) const;

 private:
  Tensor shard_block(const Tensor& shard, int block) const;

  Kernels* kernels_;
  Stream* stream_;
  Communicator* group_;
  Tensor scratch_;
  TensorParallelOverlap overlap_;
};

}  // namespace llama3d
