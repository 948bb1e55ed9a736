#pragma once

#include "data/stream_samples.hpp"

namespace llama3d {

/// Whole documents, a longer one cut to a sample's length, put together so that little of a sample stays
/// empty: a sample takes the longest document that still fits until none does (LLaMA-Factory's greedy
/// knapsack), of equally long ones the first in the file. Samples stand in the order of their first
/// documents, documents in that of the file. Documents of fewer than two tokens have nothing to learn and are
/// left out. Valid and train share out the documents, and are packed by themselves.
///
/// O(n log n) time for n documents, and two numbers a document of memory. `file` must outlive it.
class PackedSamples final : public SampleList {
 public:
  PackedSamples(const TokenFileReader& file, const SampleOptions& options);
  std::int64_t samples() const override { return static_cast<std::int64_t>(begins_.size()) - 1; }
  std::int64_t tokens(std::int64_t sample) const override;
  void stretches(std::int64_t sample, std::vector<Stretch>& stretches) const override;
  std::string describe() const override;

  /// Share of all samples' places that hold a token.
  double efficiency() const;
  std::int64_t truncated_documents() const { return truncated_; }

 private:
  std::int64_t length(std::int64_t document) const;
  std::span<const std::int64_t> documents_of(std::int64_t sample) const;
  void pack(Range range);
  void sort_samples();

  std::span<const std::uint64_t> offsets_;
  SampleOptions options_;
  bool conversations_;                   ///< what `tokenize --cutoff` is for
  std::vector<std::int64_t> documents_;  ///< of all samples, one after the other
  std::vector<std::int64_t> begins_;     ///< of each sample in documents_, and their end
  std::int64_t tokens_ = 0, truncated_ = 0;
};

}  // namespace llama3d
