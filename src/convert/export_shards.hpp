#pragma once
// The safetensors files of an export.

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/weight_transfer.hpp"

namespace llama3d {

/// One file's tensors.
struct Shard {
  std::string name;
  std::vector<WeightTensor> tensors;
};

/// Distributes the tensors, in order, over files of at most `most_bytes` each; a larger tensor has its own.
std::vector<Shard> make_shards(const std::vector<WeightTensor>& tensors, std::int64_t most_bytes);

/// Writes shards, a piece of a tensor at a time.
class ShardWriter {
 public:
  /// All outlive the writer.
  ShardWriter(const WeightSource& source, std::filesystem::path folder, const ShowProgress& show);

  /// Adds to the bytes that progress is told of.
  void expect(const Shard& shard);
  void write(const Shard& shard);

 private:
  const WeightSource& source_;
  std::filesystem::path folder_;
  const ShowProgress& show_;
  TransferProgress progress_;
  std::vector<std::byte> buffer_;
};

}  // namespace llama3d
