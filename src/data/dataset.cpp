#include "data/dataset.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// Writes the rows of one sample from `row` on. tokens: (sequence + 1); learn: (sequence), 1 where the target
/// counts; starts: sample-relative places, ascending, where a document begins inside the sample.
void fill_sample(BatchRows& batch, std::int64_t row, std::span<const std::uint32_t> tokens,
                 std::span<const std::uint8_t> learn, std::span<const std::int64_t> starts) {
  const auto sequence = static_cast<std::int64_t>(learn.size());
  for (std::int64_t i = 0; i < sequence; ++i) {
    batch.ids[row + i] = static_cast<std::int32_t>(tokens[i]);
    batch.targets[row + i] = learn[i] ? static_cast<std::int32_t>(tokens[i + 1]) : -1;
  }
  for (const std::int64_t begin : starts)  // the last row before a document has its target in the next one
    if (begin > 0) batch.targets[row + begin - 1] = -1;
  std::int64_t begin = 0;
  const auto fill_document = [&](std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      batch.start[row + i] = static_cast<std::int32_t>(row + begin);
      batch.end[row + i] = static_cast<std::int32_t>(row + end);
      batch.position[row + i] = static_cast<std::int32_t>(i - begin);
    }
    begin = end;
  };
  for (const std::int64_t next : starts)
    if (next > 0 && next < sequence) fill_document(next);
  fill_document(sequence);
}

/// A document boundary exactly after the sample, at `sequence`, belongs to the list too: it ends the last
/// target.
void find_starts(const std::vector<std::uint64_t>& documents, std::int64_t begin, std::int64_t sequence,
                 std::vector<std::int64_t>& starts) {
  starts.clear();
  auto offset = std::upper_bound(documents.begin(), documents.end(), static_cast<std::uint64_t>(begin));
  for (; offset != documents.end() && *offset <= static_cast<std::uint64_t>(begin + sequence); ++offset)
    starts.push_back(static_cast<std::int64_t>(*offset) - begin);
}

void fill_padding(BatchRows& batch, std::int64_t first, std::int64_t rows) {
  for (std::int64_t row = first; row < rows; ++row) {
    batch.ids[row] = 0;
    batch.targets[row] = -1;
    batch.start[row] = static_cast<std::int32_t>(row);
    batch.end[row] = static_cast<std::int32_t>(row + 1);
    batch.position[row] = 0;
  }
}

void check_vocabulary(const TokenFileReader& file, std::int64_t vocabulary) {
  if (file.info().vocabulary_size > vocabulary)
    throw DataError(fmt::format(
        "{} has token ids up to {} (tokenizer {}), but the model's vocabulary is {}; choose a model with "
        "a vocabulary of at least {}, or tokenize again with the model's tokenizer",
        file.path().string(), file.info().vocabulary_size - 1, file.info().tokenizer, vocabulary,
        file.info().vocabulary_size));
}

}  // namespace

Dataset::Dataset(TokenFileReader file, const DatasetOptions& options, std::int64_t vocabulary)
    : file_(std::move(file)), options_(options) {
  LLAMA3D_EXPECT(options.sequence > 0, "sequence of {} tokens", options.sequence);
  LLAMA3D_EXPECT(options.valid_fraction >= 0 && options.valid_fraction < 1, "valid_fraction is {}",
                 options.valid_fraction);
  LLAMA3D_EXPECT(options.split != Split::valid || options.valid_fraction > 0,
                 "no valid split without a share");
  check_vocabulary(file_, vocabulary);

  const std::int64_t total = std::max<std::int64_t>(file_.tokens() - 1, 0) / options.sequence;
  if (total == 0)
    throw DataError(
        fmt::format("{} has {} tokens (one sample of {} needs {}); use more text or a shorter sequence",
                    file_.path().string(), file_.tokens(), options.sequence, options.sequence + 1));
  samples_ = total;
  if (options.split == Split::all || options.valid_fraction == 0) return;

  const auto share = std::llround(options.valid_fraction * static_cast<double>(total));
  const std::int64_t valid = std::max<std::int64_t>(1, share);
  if (valid >= total)
    throw DataError(
        fmt::format("{} has {} samples of {} tokens (a valid share of {} leaves none to train on); use "
                    "more text, a shorter sequence or a smaller share",
                    file_.path().string(), total, options.sequence, options.valid_fraction));
  if (options.split == Split::train) {
    samples_ = total - valid;
  } else {
    first_sample_ = total - valid;
    samples_ = valid;
  }
}

BatchRows Dataset::read(std::int64_t first, std::int64_t count, std::int64_t rows) const {
  const std::int64_t sequence = options_.sequence;
  LLAMA3D_EXPECT(first >= 0 && count >= 0 && rows <= std::numeric_limits<std::int32_t>::max() &&
                     count <= rows / sequence,
                 "samples [{}, {} + {}) of {} tokens in {} rows", first, first, count, sequence, rows);
  BatchRows batch;
  for (auto* values : {&batch.ids, &batch.targets, &batch.start, &batch.end, &batch.position})
    values->resize(static_cast<std::size_t>(rows));

  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(sequence + 1));
  std::vector<std::uint8_t> learn(static_cast<std::size_t>(sequence), 1);
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = sample_begin(first + i);
    file_.read(begin, tokens);
    if (file_.info().has_loss_mask) file_.read_loss_mask(begin + 1, learn);
    if (options_.separate_documents) find_starts(file_.documents(), begin, sequence, starts);
    fill_sample(batch, i * sequence, tokens, learn, starts);
  }
  fill_padding(batch, count * sequence, rows);
  return batch;
}

std::int64_t Dataset::sample_begin(std::int64_t global) const {
  const std::int64_t epoch = global / samples_, place = global % samples_;
  const bool shuffle = options_.shuffle && options_.split != Split::valid;
  const std::int64_t sample =
      shuffle ? Permutation(samples_, options_.seed, static_cast<std::uint64_t>(epoch))(place) : place;
  return (first_sample_ + sample) * options_.sequence;
}

}  // namespace llama3d
