#include "convert/export_shards.hpp"

#include <fmt/format.h>

#include <utility>

#include "io/safetensors/safetensors.hpp"

namespace llama3d {

std::vector<Shard> make_shards(const std::vector<WeightTensor>& tensors, std::int64_t most_bytes) {
  std::vector<Shard> shards;
  std::int64_t bytes = 0;
  for (const WeightTensor& tensor : tensors) {
    bytes += bytes_of(tensor);
    if (shards.empty() || bytes > most_bytes) {
      shards.emplace_back();
      bytes = bytes_of(tensor);
    }
    shards.back().tensors.push_back(tensor);
  }
  for (std::size_t i = 0; i < shards.size(); ++i)
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, shards.size());
  return shards;
}

ShardWriter::ShardWriter(const WeightSource& source, std::filesystem::path folder, const ShowProgress& show)
    : source_(source), folder_(std::move(folder)), show_(show) {}

void ShardWriter::expect(const Shard& shard) {
  for (const WeightTensor& tensor : shard.tensors) progress_.bytes_total += bytes_of(tensor);
}

void ShardWriter::write(const Shard& shard) {
  std::vector<SafetensorsEntry> entries;
  for (const WeightTensor& tensor : shard.tensors)
    entries.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(folder_ / shard.name, entries);
  for (const TensorPiece& piece : pieces_of(shard.tensors)) {
    const WeightTensor& tensor = shard.tensors[static_cast<std::size_t>(piece.tensor)];
    const Rectangle& r = piece.rectangle;
    buffer_.resize(static_cast<std::size_t>(piece.bytes));
    source_.read(tensor.name, r, buffer_.data(), tensor.dtype);
    writer.write(tensor.name, buffer_.data(), r.row_begin * r.columns(), r.elements());
    progress_.bytes_done += piece.bytes;
    progress_.tensor = tensor.name;
    if (show_) show_(progress_);
  }
  writer.finish();
}

}  // namespace llama3d
