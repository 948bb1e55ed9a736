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

void RowExchange::wait(int block) {
  if (const WorkHandle work = std::exchange(works_[static_cast<std::size_t>(block)], nullptr))
    work->wait(*stream_);
}

void RowExchange::wait() {
  for (int block = 0; block < static_cast<int>(works_.size()); ++block) wait(block);
}

Tensor TensorParallel::block_of(const Tensor& full, int block) const {
  return slice_of(full, block, blocks());
}

Tensor TensorParallel::shard_block(const Tensor& shard, int block) const {
  LLAMA3D_EXPECT(shard.rows() % blocks() == 0, "{} rows in {} blocks", shard.rows(), blocks());
  return slice_of(shard, block, blocks());
}

RowExchange TensorParallel::start_gather(const Tensor& shard, const Tensor& full, Label label) const {
  if (size() == 1) return {shard, 1, *stream_};
  RowExchange exchange(rows_of_all(shard, size(), full), blocks(), *stream_);
  for (int block = 0; block < blocks(); ++block) {
    exchange.started(block, group_->all_gather(shard_block(shard, block), block_of(exchange.full(), block),
                                               label, *stream_));
    if (!overlap_.enabled) exchange.wait(block);
  }
  return exchange;
}

Tensor TensorParallel::gather(const Tensor& shard, const Tensor& full, Label label) const {
  RowExchange exchange = start_gather(shard, full, label);
  exchange.wait();
  return exchange.full();
}

Tensor TensorParallel::all_rows(const Tensor& shard) const {
  return size() == 1 ? shard : rows_of_all(shard, size(), scratch_);
}

void TensorParallel::start_reduction(RowExchange& exchange, int block, const Tensor& shard,
                                     Label label) const {
  if (size() == 1) return;
  exchange.started(block, group_->reduce_scatter(block_of(exchange.full(), block), shard_block(shard, block),
                                                 label, *stream_));
  if (!overlap_.enabled) exchange.wait(block);
}

RowExchange TensorParallel::start_reduction(const Tensor& partial, const Tensor& shard, Label label) const {
  RowExchange exchange(partial, blocks(), *stream_);
  for (int block = 0; block < blocks(); ++block) start_reduction(exchange, block, shard, label);
  return exchange;
}

void TensorParallel::reduce_scatter(const Tensor& partial, const Tensor& shard, Label label) const {
  start_reduction(partial, shard, label).wait();
}

}  // namespace llama3d
