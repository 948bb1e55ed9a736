#pragma once
// From a token file to the rows a training step computes on. A sample is a function of its global index
// alone: no grid, no batch size and no restart changes the order.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/samples.hpp"
#include "io/tokens/token_file.hpp"

namespace llama3d {

/// Host arrays of one micro-batch, a value a row; rows are samples one after the other, each filled up with
/// padding, then padding.
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

struct DatasetOptions {
  std::int64_t sequence = 0;  ///< rows of a sample
  std::uint64_t seed = 0;     ///< of the shuffle
  bool shuffle = true;        ///< of all and train; valid is always read in order
  Split split = Split::all;
  double valid_fraction = 0;  ///< share at the end of the file that belongs to valid
  Packing packing = Packing::automatic;
  bool separate_documents = true;  ///< attention and positions restart at every document
};

/// Samples of a token file, shuffled, as rows.
class Dataset {
 public:
  /// Throws DataError when the file is too short for one sample, and when `vocabulary` (the model's) is
  /// smaller than a token id needs.
  Dataset(TokenFileReader file, const DatasetOptions& options, std::int64_t vocabulary);

  /// Samples of one epoch.
  std::int64_t samples() const { return samples_->samples(); }
  const TokenFileReader& file() const { return *file_; }
  const SampleList& list() const { return *samples_; }
  /// The rows of global samples [first, first + count), each index running over epochs without end,
  /// reshuffled at each; padding rows (documents of their own, id 0, no target) after a sample that is not
  /// full, and `rows` - count * sequence of them at the end. Throws DataError for a token that the model does
  /// not have, where the file does not say which there are.
  BatchRows read(std::int64_t first, std::int64_t count, std::int64_t rows) const;
  /// Input tokens of these samples, padding left out.
  std::int64_t tokens(std::int64_t first, std::int64_t count) const;

 private:
  /// The sample of the list that this global index stands for.
  std::int64_t sample_of(std::int64_t global) const;
  /// Writes the rows of one sample from `row` on.
  void read_sample(std::int64_t sample, std::int64_t row, BatchRows& batch) const;
  /// Stretches that follow one another in the file, from `row` on.
  void read_run(std::span<const Stretch> run, std::int64_t row, BatchRows& batch) const;
  void check_tokens(std::int64_t begin, std::span<const std::uint32_t> tokens) const;

  std::unique_ptr<TokenFileReader> file_;  ///< stays where it is, for the list
  DatasetOptions options_;
  std::int64_t vocabulary_;
  std::unique_ptr<SampleList> samples_;
};

}  // namespace llama3d
