#include "train/batches.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/tokenizer_name.hpp"
#include "comm/failure.hpp"
#include "data/identity.hpp"

namespace llama3d {
namespace {

/// Micro-batches of a rank that are in memory at once in a validation; many, so that a pipeline is full most
/// of the time.
constexpr std::int64_t part_micro_batches = 64;

Dataset open(const std::string& path, const TrainSettings& settings, const RankPlan& plan, Split split,
             bool shuffle) {
  DatasetOptions options;
  options.sequence = settings.seq_length;
  options.seed = settings.seed;
  options.shuffle = shuffle;
  options.split = split;
  options.valid_fraction = settings.valid_fraction;
  options.packing = settings.packing;
  options.separate_documents = settings.separate_documents;
  return Dataset(TokenFileReader(path), options, plan.shape.model.vocabulary);
}

Dataset open_train(const TrainSettings& settings, const RankPlan& plan) {
  if (settings.data.empty())
    throw ConfigurationError("`data`: no token file given; make one with `llama3d tokenize`");
  const bool split = settings.valid_data.empty() && settings.valid_fraction > 0;
  return open(settings.data, settings, plan, split ? Split::train : Split::all, true);
}

TokenizerName tokenizer_of(const Dataset& dataset) {
  const TokenFileInfo& info = dataset.file().info();
  return {info.tokenizer, info.tokenizer_hash};
}

}  // namespace

ReplicaBatches::ReplicaBatches(const RankPlan& plan)
    : micro_batch_(plan.shape.micro_batch_size),
      rows_(plan.layout.shape.rows),
      micro_batches_(plan.pipeline.micro_batches),
      dp_size_(plan.grid.size(Axis::data)),
      dp_rank_(plan.grid.rank(Axis::data)) {}

std::vector<BatchRows> ReplicaBatches::step(const Dataset& dataset, std::int64_t first) const {
  std::vector<BatchRows> batches;
  for (std::int64_t m = 0; m < micro_batches_; ++m)
    batches.push_back(dataset.read(first + (m * dp_size_ + dp_rank_) * micro_batch_, micro_batch_, rows_));
  return batches;
}

std::vector<BatchRows> ReplicaBatches::sweep(const Dataset& dataset, std::int64_t begin,
                                             std::int64_t end) const {
  std::vector<BatchRows> batches;
  for (; begin < end; begin += samples_at_once()) {
    const std::int64_t first = begin + dp_rank_ * micro_batch_;
    batches.push_back(dataset.read(first, std::clamp<std::int64_t>(end - first, 0, micro_batch_), rows_));
  }
  return batches;
}

TrainingBatches::TrainingBatches(const TrainSettings& settings, const RankPlan& plan)
    : replica_(plan),
      train_(open_train(settings, plan)),
      packing_(settings.packing),
      identity_(identity_of(train_.file())),
      valid_samples_(settings.valid_samples),
      global_batch_(plan.shape.global_batch()) {
  if (!settings.valid_data.empty()) {
    valid_.emplace(open(settings.valid_data, settings, plan, Split::all, false));
    identity_ += identity_of(valid_->file());
  } else if (settings.valid_fraction > 0) {
    valid_.emplace(open(settings.data, settings, plan, Split::valid, false));
  }
  read(0);  // samples that can't be used are better seen now than after the first step was set up
}

std::string TrainingBatches::describe() const {
  std::string text = "data: " + train_.list().describe();
  if (valid_) text += "\nvalidation: " + valid_->list().describe();
  if (valid_ && differ(tokenizer_of(train_), tokenizer_of(*valid_)))
    text += fmt::format("\nwarning: `data` was made with {}, `valid_data` with {}",
                        tokenizer_of(train_).to_string(), tokenizer_of(*valid_).to_string());
  return text;
}

std::int64_t TrainingBatches::validation_samples() const {
  return valid_samples_ > 0 ? std::min(valid_samples_, valid_->samples()) : valid_->samples();
}

std::int64_t TrainingBatches::validation_parts() const {
  const std::int64_t each = part_micro_batches * replica_.samples_at_once();
  return (validation_samples() + each - 1) / each;
}

std::vector<BatchRows> TrainingBatches::read_validation(std::int64_t part) const {
  const std::int64_t each = part_micro_batches * replica_.samples_at_once();
  return replica_.sweep(*valid_, part * each, std::min((part + 1) * each, validation_samples()));
}

void expect_same_data(const TrainingBatches& batches, const TrainSettings& settings, ControlPlane& control) {
  const std::string first = control.broadcast(batches.identity(), 0);
  fail_together(control, [&] {
    if (batches.identity() != first)
      throw DataError(
          fmt::format("`data {}`: is not the file that rank 0 has (another copy on this node?); give every "
                      "rank the same{}",
                      settings.data,
                      settings.valid_data.empty() ? "" : ", `valid_data` " + settings.valid_data + " too"));
  });
}

}  // namespace llama3d
