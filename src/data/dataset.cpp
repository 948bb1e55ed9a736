#include "data/dataset.hpp"

#include <algorithm>
#include <limits>
#include <span>

#include "base/error.hpp"

namespace llama3d {
namespace {

void fill_padding(BatchRows& batch, std::int64_t first, std::int64_t end) {
  for (std::int64_t row = first; row < end; ++row) {
    batch.ids[row] = 0;
    batch.targets[row] = -1;
    batch.start[row] = static_cast<std::int32_t>(row);
    batch.end[row] = static_cast<std::int32_t>(row + 1);
    batch.position[row] = 0;
  }
}

/// Rows [begin, end) attend to one another, and to no others.
void fill_document(BatchRows& batch, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    batch.start[row] = static_cast<std::int32_t>(begin);
    batch.end[row] = static_cast<std::int32_t>(end);
    batch.position[row] = static_cast<std::int32_t>(row - begin);
  }
}

void check_vocabulary(const TokenFileReader& file, std::int64_t vocabulary) {
  if (file.info().id_bound() > vocabulary)
    throw DataError(fmt::format(
        "{} has token ids up to {} (tokenizer {}), but the model's vocabulary is {}; choose a model with "
        "a vocabulary of at least {}, or tokenize again with the model's tokenizer",
        file.path().string(), file.info().id_bound() - 1, file.info().tokenizer, vocabulary,
        file.info().id_bound()));
}

}  // namespace

Dataset::Dataset(TokenFileReader file, const DatasetOptions& options, std::int64_t vocabulary)
    : file_(std::make_unique<TokenFileReader>(std::move(file))), options_(options), vocabulary_(vocabulary) {
  check_vocabulary(*file_, vocabulary);
  samples_ = make_samples(*file_, resolved(options.packing, *file_),
                          {.sequence = options.sequence,
                           .split = options.split,
                           .valid_fraction = options.valid_fraction,
                           .separate_documents = options.separate_documents});
}

BatchRows Dataset::read(std::int64_t first, std::int64_t count, std::int64_t rows) const {
  const std::int64_t sequence = options_.sequence;
  LLAMA3D_EXPECT(first >= 0 && count >= 0 && rows <= std::numeric_limits<std::int32_t>::max() &&
                     count <= rows / sequence,
                 "samples [{}, {} + {}) of {} tokens in {} rows", first, first, count, sequence, rows);
  BatchRows batch;
  for (auto* values : {&batch.ids, &batch.targets, &batch.start, &batch.end, &batch.position})
    values->resize(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < count; ++i) read_sample(sample_of(first + i), i * sequence, batch);
  fill_padding(batch, count * sequence, rows);
  return batch;
}

void Dataset::read_sample(std::int64_t sample, std::int64_t row, BatchRows& batch) const {
  std::vector<Stretch> stretches;
  samples_->stretches(sample, stretches);
  const std::int64_t sample_end = row + options_.sequence;
  std::int64_t document = row, run_row = row, place = row;
  std::size_t run = 0;
  for (std::size_t i = 0; i < stretches.size(); ++i) {
    const Stretch& stretch = stretches[i];
    const bool last = i + 1 == stretches.size();
    place += stretch.length;
    if (last || stretches[i + 1].begin != stretch.begin + stretch.length) {
      read_run(std::span(stretches).subspan(run, i + 1 - run), run_row, batch);
      run = i + 1;
      run_row = place;
    }
    if (last || !stretches[i + 1].continues) {
      fill_document(batch, document, place);
      document = place;
    }
  }
  fill_padding(batch, place, sample_end);
}

void Dataset::read_run(std::span<const Stretch> run, std::int64_t row, BatchRows& batch) const {
  const std::int64_t begin = run.front().begin, end = run.back().begin + run.back().length;
  const auto count = static_cast<std::size_t>(end - begin + (run.back().target_after ? 1 : 0));
  std::vector<std::uint32_t> tokens(count);
  std::vector<std::uint8_t> learn(count, 1);
  file_->read(begin, tokens);
  check_tokens(begin, tokens);
  if (file_->info().has_loss_mask) file_->read_loss_mask(begin, learn);
  for (const Stretch& stretch : run) {
    const std::int64_t first = stretch.begin - begin;
    for (std::int64_t i = first; i < first + stretch.length; ++i) {
      const bool has_next = i + 1 < first + stretch.length || stretch.target_after;
      batch.ids[row + i] = static_cast<std::int32_t>(tokens[i]);
      batch.targets[row + i] = has_next && learn[i + 1] ? static_cast<std::int32_t>(tokens[i + 1]) : -1;
    }
  }
}

void Dataset::check_tokens(std::int64_t begin, std::span<const std::uint32_t> tokens) const {
  const std::int64_t known = file_->info().vocabulary_size;
  if (known > 0 && known <= vocabulary_) return;  // checked against that
  const auto bad = std::find_if(tokens.begin(), tokens.end(), [&](auto id) { return id >= vocabulary_; });
  if (bad != tokens.end())
    throw DataError(fmt::format(
        "{}: token {} is {}, but the model's vocabulary is {}; tokenize with the model's tokenizer",
        file_->path().string(), begin + (bad - tokens.begin()), *bad, vocabulary_));
}

std::int64_t Dataset::tokens(std::int64_t first, std::int64_t count) const {
  std::int64_t sum = 0;
  for (std::int64_t i = first; i < first + count; ++i) sum += samples_->tokens(sample_of(i));
  return sum;
}

std::int64_t Dataset::sample_of(std::int64_t global) const {
  const std::int64_t epoch = global / samples(), place = global % samples();
  const bool shuffle = options_.shuffle && options_.split != Split::valid;
  return shuffle ? Permutation(samples(), options_.seed, static_cast<std::uint64_t>(epoch))(place) : place;
}

}  // namespace llama3d
