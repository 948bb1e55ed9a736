#pragma once
// Hugging Face safetensors: 8 bytes little-endian header size, a JSON header with dtype, shape and
// data_offsets of each tensor, then the data. A model is one model.safetensors, or shards listed by
// model.safetensors.index.json.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "io/checkpoint/checkpoint_piece.hpp"

namespace llama3d {

/// Whether the folder holds a model of either kind.
bool is_safetensors_folder(const std::filesystem::path& folder);

struct SafetensorsTensor {
  std::string name;
  std::string dtype;  ///< as in the file: "BF16", "F32", "F16", and others that read() refuses
  std::vector<std::int64_t> shape;
  std::int64_t elements() const;
};

/// Headers are checked at once: sizes, overlaps, gaps, shards that disagree with the index or lie outside the
/// folder (base/model_folder.hpp). Tensors are read when asked for, from as many files at a time as may be
/// open. Throws DataError naming file, tensor and reason. One object is for one thread.
class SafetensorsReader {
 public:
  /// `path` is a .safetensors file or a folder with model.safetensors, or with an index.
  explicit SafetensorsReader(const std::filesystem::path& path);
  ~SafetensorsReader();
  SafetensorsReader(SafetensorsReader&&) noexcept;

  /// In name order.
  const std::vector<SafetensorsTensor>& tensors() const;
  /// Null when there is none of this name.
  const SafetensorsTensor* find(const std::string& name) const;
  /// A rectangle of a one- or two-dimensional F32, BF16 or F16 tensor, row-major in `out`, converted to
  /// out_dtype.
  void read(const std::string& name, const Rectangle& rectangle, void* out, DType out_dtype) const;
  std::int64_t files() const;
  std::int64_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A tensor to be written: fp32 or bf16.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::bf16;
  std::vector<std::int64_t> shape;
};

/// Writes one file whose tensors are known beforehand, a tensor or a part at a time in any order, holding
/// none of them. Writes beside `path` and renames it at finish(). Throws DataError.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafetensorsEntry>& entries);
  ~SafetensorsWriter();
  /// All elements of one tensor, in its dtype, row-major.
  void write(const std::string& name, const void* data);
  /// Elements [first, first + count) of it, each of them once.
  void write(const std::string& name, const void* data, std::int64_t first, std::int64_t count);
  /// Throws ContractViolation when a tensor was not written whole.
  void finish();
  /// Bytes of all tensors, without header.
  std::int64_t data_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// model.safetensors.index.json: which shard (file name) holds which tensor.
void write_safetensors_index(const std::filesystem::path& folder,
                             const std::map<std::string, std::string>& shard_of, std::int64_t total_bytes);

}  // namespace llama3d
