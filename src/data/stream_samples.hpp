#pragma once

#include "data/samples.hpp"

namespace llama3d {

/// [begin, end) of the samples or documents.
struct Range {
  std::int64_t begin = 0, end = 0;
};
/// The part of `total` that belongs to the split. Valid gets at least one.
Range split_range(std::int64_t total, const SampleOptions& options);
bool leaves_none_to_train_on(Range range, const SampleOptions& options);

/// Sample i has inputs [i * sequence, (i + 1) * sequence) of the concatenated documents and the targets one
/// further. `file` must outlive it.
class StreamSamples final : public SampleList {
 public:
  StreamSamples(const TokenFileReader& file, const SampleOptions& options);
  std::int64_t samples() const override { return range_.end - range_.begin; }
  std::int64_t tokens(std::int64_t) const override { return options_.sequence; }
  void stretches(std::int64_t sample, std::vector<Stretch>& stretches) const override;
  std::string describe() const override;

 private:
  std::span<const std::uint64_t> documents_;
  SampleOptions options_;
  Range range_;
};

}  // namespace llama3d
