#include "parallel/tensor_parallel.hpp"

#include <utility>

namespace llama3d {
namespace {

Tensor slice_of(const Tensor& tensor, int part, int parts) {
  const std::int64_t rows = tensor.rows() / parts;
  return tensor.slice(part * rows, (part + 1) * rows);
}

/// As much of a buffer as the rows of all shards like this take.
Tensor rows_of_all(const Tensor& shard, int ranks, const Tensor& buffer) {
  const std::int64_t rows = shard.rows() * ranks;
  return buffer.flat().slice(0, rows * shard.columns()).reshape({rows, shard.columns()});
}

}  // namespace

void PendingRows::wait(int block) {
  if (const WorkHandle work = std::exchange(works_[static_cast<std::size_t>(block)], nullptr))
    work->wait(*stream_);
}

void PendingRows::wait() {
  for (int block = 0; block < static_cast<int>(works_.size()); ++block) wait(block);
}

Tensor TensorParallel::block_of(const Tensor& full, int block) const {
  return slice_of(full, block, blocks());
}

Tensor TensorParallel::shard_block(const Tensor& shard, int block) const {
  LLAMA3D_EXPECT(shard.rows() % blocks() == 0, "{} rows in {} blocks", shard.rows(), blocks());
  return slice_of(shard, block, blocks());
}

PendingRows TensorParallel::start_gather(const Tensor& shard, const Tensor& full, Label label) const {
  if (size() == 1) return {shard, 1, *stream_};
  PendingRows rows(rows_of_all(shard, size(), full), blocks(), *stream_);
  for (int block = 0; block < blocks(); ++block) {
    rows.started(
        block, group_->all_gather(shard_block(shard, block), block_of(rows.full(), block), label, *stream_));
    if (!overlap_.enabled) rows.wait(block);
  }
  return rows;
}

Tensor TensorParallel::gather(const Tensor& shard, const Tensor& full, Label label) const {
  PendingRows rows = start_gather(shard, full, label);
  rows.wait();
  return rows.full();
}

Tensor TensorParallel::all_rows(const Tensor& shard) const {
  return size() == 1 ? shard : rows_of_all(shard, size(), scratch_);
}

void TensorParallel::start_reduction(PendingRows& rows, int block, const Tensor& shard, Label label) const {
  if (size() == 1) return;
  rows.started(block, group_->reduce_scatter(block_of(rows.full(), block), shard_block(shard, block), label,
                                             *stream_));
  if (!overlap_.enabled) rows.wait(block);
}

PendingRows TensorParallel::start_reduction(const Tensor& partial, const Tensor& shard, Label label) const {
  PendingRows rows(partial, blocks(), *stream_);
  for (int block = 0; block < blocks(); ++block) start_reduction(rows, block, shard, label);
  return rows;
}

void TensorParallel::reduce_scatter(const Tensor& partial, const Tensor& shard, Label label) const {
  start_reduction(partial, shard, label).wait();
}

}  // namespace llama3d
