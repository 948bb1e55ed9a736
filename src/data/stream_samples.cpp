#include "data/stream_samples.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace llama3d {

StreamSamples::StreamSamples(const TokenFileReader& file, const SampleOptions& options)
    : documents_(file.documents()), options_(options) {
  const std::int64_t sequence = options.sequence;
  const std::int64_t total = std::max<std::int64_t>(file.tokens() - 1, 0) / sequence;
  if (total == 0)
    throw DataError(
        fmt::format("{} has {} tokens (one sample of {} needs {}); use more text or a shorter sequence",
                    file.path().string(), file.tokens(), sequence, sequence + 1));
  range_ = split_range(total, options);
  if (leaves_none_to_train_on(range_, options))
    throw DataError(
        fmt::format("{} has {} samples of {} tokens (a valid share of {} leaves none to train on); use "
                    "more text, a shorter sequence or a smaller share",
                    file.path().string(), total, sequence, options.valid_fraction));
}

void StreamSamples::stretches(std::int64_t sample, std::vector<Stretch>& stretches) const {
  stretches.clear();
  std::int64_t begin = (range_.begin + sample) * options_.sequence;
  const std::int64_t end = begin + options_.sequence;
  if (options_.separate_documents) {
    auto next = std::upper_bound(documents_.begin(), documents_.end(), static_cast<std::uint64_t>(begin));
    for (; next != documents_.end() && *next <= static_cast<std::uint64_t>(end); ++next) {
      const auto document_end = static_cast<std::int64_t>(*next);
      if (document_end > begin) stretches.push_back({begin, document_end - begin, false, false});
      begin = document_end;
    }
  }
  if (begin < end) stretches.push_back({begin, end - begin, false, true});
}

std::string StreamSamples::describe() const {
  return fmt::format("{} samples of {} tokens, cut from a stream of documents", samples(), options_.sequence);
}

}  // namespace llama3d
