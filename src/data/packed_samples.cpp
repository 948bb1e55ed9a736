#include "data/packed_samples.hpp"

#include <algorithm>
#include <numeric>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::int64_t shortest = 2;

/// Documents by length, each to be taken once.
class Shelf {
 public:
  /// `lengths` by document of the range, at most `longest`; shorter ones than `shortest` are not there.
  Shelf(const std::vector<std::int64_t>& lengths, std::int64_t first, std::int64_t longest)
      : next_(static_cast<std::size_t>(longest) + 2), at_most_(static_cast<std::size_t>(longest) + 1) {
    for (const std::int64_t length : lengths)
      if (length >= shortest) ++next_[static_cast<std::size_t>(length) + 1];
    std::partial_sum(next_.begin(), next_.end(), next_.begin());
    end_.assign(next_.begin() + 1, next_.end());
    documents_.resize(static_cast<std::size_t>(next_.back()));
    std::vector<std::int64_t> place(next_);
    for (std::size_t i = 0; i < lengths.size(); ++i)
      if (lengths[i] >= shortest)
        documents_[static_cast<std::size_t>(place[static_cast<std::size_t>(lengths[i])]++)] =
            first + static_cast<std::int64_t>(i);
    std::iota(at_most_.begin(), at_most_.end(), 0);
  }

  /// The longest length of at most `room` that is there; 0 when there is none.
  std::int64_t longest_within(std::int64_t room) {
    auto length = static_cast<std::size_t>(room);
    while (length > 0 && next_[length] == end_[length]) {
      // Lengths that are used up point to shorter ones, ever further: a search costs next to nothing.
      const std::size_t shorter = at_most_[length] < length ? at_most_[length] : length - 1;
      at_most_[length] = at_most_[shorter];
      length = shorter;
    }
    return static_cast<std::int64_t>(length);
  }

  std::int64_t take(std::int64_t length) {
    return documents_[static_cast<std::size_t>(next_[static_cast<std::size_t>(length)]++)];
  }

 private:
  std::vector<std::int64_t> documents_;   ///< by length
  std::vector<std::int64_t> next_, end_;  ///< by length: places in documents_
  std::vector<std::size_t> at_most_;      ///< by length: none between this one and it is there
};

}  // namespace

PackedSamples::PackedSamples(const TokenFileReader& file, const SampleOptions& options)
    : offsets_(file.documents()), options_(options), conversations_(file.info().has_loss_mask) {
  const auto documents = static_cast<std::int64_t>(offsets_.size()) - 1;
  const Range range = split_range(documents, options);
  if (documents > 0 && leaves_none_to_train_on(range, options))
    throw DataError(
        fmt::format("{} has {} documents (a valid share of {} leaves none to train on); use more text or a "
                    "smaller share",
                    file.path().string(), documents, options.valid_fraction));
  pack(range);
  if (samples() == 0)
    throw DataError(
        fmt::format("{} has no document of {} tokens or more among {} (a sample needs one); use more text",
                    file.path().string(), shortest, range.end - range.begin));
  sort_samples();
}

std::int64_t PackedSamples::length(std::int64_t document) const {
  const auto i = static_cast<std::size_t>(document);
  return std::min(static_cast<std::int64_t>(offsets_[i + 1] - offsets_[i]), options_.sequence);
}

void PackedSamples::pack(Range range) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t d = range.begin; d < range.end; ++d) {
    lengths.push_back(length(d));
    const auto i = static_cast<std::size_t>(d);
    if (offsets_[i + 1] - offsets_[i] > static_cast<std::uint64_t>(options_.sequence)) ++truncated_;
    if (lengths.back() >= shortest) tokens_ += lengths.back();
  }
  Shelf shelf(lengths, range.begin, options_.sequence);
  begins_.push_back(0);
  while (shelf.longest_within(options_.sequence) > 0) {
    std::int64_t room = options_.sequence;
    while (const std::int64_t fits = shelf.longest_within(room)) {
      documents_.push_back(shelf.take(fits));
      room -= fits;
    }
    std::sort(documents_.begin() + begins_.back(), documents_.end());
    begins_.push_back(static_cast<std::int64_t>(documents_.size()));
  }
}

void PackedSamples::sort_samples() {
  std::vector<std::int64_t> order(static_cast<std::size_t>(samples()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [this](std::int64_t a, std::int64_t b) {
    return documents_of(a).front() < documents_of(b).front();
  });
  std::vector<std::int64_t> documents, begins = {0};
  documents.reserve(documents_.size());
  for (const std::int64_t sample : order) {
    const auto inside = documents_of(sample);
    documents.insert(documents.end(), inside.begin(), inside.end());
    begins.push_back(static_cast<std::int64_t>(documents.size()));
  }
  documents_ = std::move(documents);
  begins_ = std::move(begins);
}

std::span<const std::int64_t> PackedSamples::documents_of(std::int64_t sample) const {
  const auto i = static_cast<std::size_t>(sample);
  return std::span(documents_)
      .subspan(static_cast<std::size_t>(begins_[i]), static_cast<std::size_t>(begins_[i + 1] - begins_[i]));
}

std::int64_t PackedSamples::tokens(std::int64_t sample) const {
  std::int64_t sum = 0;
  for (const std::int64_t document : documents_of(sample)) sum += length(document);
  return sum;
}

void PackedSamples::stretches(std::int64_t sample, std::vector<Stretch>& stretches) const {
  stretches.clear();
  for (const std::int64_t document : documents_of(sample))
    stretches.push_back({static_cast<std::int64_t>(offsets_[static_cast<std::size_t>(document)]),
                         length(document), !options_.separate_documents && !stretches.empty(), false});
}

double PackedSamples::efficiency() const {
  return static_cast<double>(tokens_) / static_cast<double>(samples() * options_.sequence);
}

std::string PackedSamples::describe() const {
  std::string text = fmt::format("{} documents packed into {} samples of {} tokens, {:.1f}% filled",
                                 documents_.size(), samples(), options_.sequence, 100 * efficiency());
  if (truncated_ > 0)
    text += fmt::format("; {} longer document{} cut: {}", truncated_, truncated_ == 1 ? " is" : "s are",
                        conversations_ ? fmt::format("tokenize with `cutoff {}` to keep part of every answer",
                                                     options_.sequence)
                                       : "`packing` stream loses nothing");
  return text;
}

}  // namespace llama3d
