#pragma once
// From a token file to the rows a training step computes on. A sample is a function of its global index
// alone: no grid, no batch size and no restart changes the order.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/token_file.hpp"

namespace llama3d {

/// Host arrays of one micro-batch, a value a row; rows are samples one after the other, then padding.
/// Ready to be uploaded as int32 tensors; see DocumentRows in compute/kernels.hpp.
struct BatchRows {
  std::vector<std::int32_t> ids;       ///< input tokens
  std::vector<std::int32_t> targets;   ///< next token, or -1 where there is none to learn
  std::vector<std::int32_t> start;     ///< first row of the row's document
  std::vector<std::int32_t> end;       ///< one past its last row
  std::vector<std::int32_t> position;  ///< place in the document, from 0
};

/// A bijection of [0, size) drawn by seed and epoch, evaluated one index at a time in O(1) memory.
class Permutation {
 public:
  Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch);
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::int64_t size_;
  std::uint64_t key_;
  int half_bits_;
};

enum class Split { all, train, valid };

struct DatasetOptions {
  std::int64_t sequence = 0;  ///< tokens a sample
  std::uint64_t seed = 0;     ///< of the shuffle
  bool shuffle = true;        ///< of all and train; valid is always read in order
  Split split = Split::all;
  double valid_fraction = 0;       ///< share of the samples, at the end of the file, that belongs to valid
  bool separate_documents = true;  ///< attention and positions restart at every document
};

/// Fixed-length samples cut from the concatenated documents: unshuffled sample i has inputs
/// [i * sequence, (i + 1) * sequence) and the targets one further.
class Dataset {
 public:
  /// Throws DataError when the file is too short for one sample, and when `vocabulary` (the model's) is
  /// smaller than a token id needs.
  Dataset(TokenFileReader file, const DatasetOptions& options, std::int64_t vocabulary);

  /// Samples of one epoch.
  std::int64_t samples() const { return samples_; }
  const TokenFileReader& file() const { return file_; }
  /// The rows of global samples [first, first + count), each index running over epochs without end,
  /// reshuffled at each, and `rows` - count * sequence padding rows (documents of their own, id 0, no
  /// target).
  BatchRows read(std::int64_t first, std::int64_t count, std::int64_t rows) const;

 private:
  /// Where the sample with this global index begins in the file.
  std::int64_t sample_begin(std::int64_t global) const;

  TokenFileReader file_;
  DatasetOptions options_;
  std::int64_t first_sample_ = 0, samples_ = 0;
};

}  // namespace llama3d
