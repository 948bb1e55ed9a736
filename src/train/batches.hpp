#pragma once
// Which samples a rank computes on, for training and validation.

#include <optional>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "plan/run_plan.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// The micro-batches of one data-parallel rank.
class ReplicaBatches {
 public:
  explicit ReplicaBatches(const RankPlan& plan);

  /// A training step that begins at global sample `first`: micro-batch m of replica d takes the samples from
  /// first + (m * DP + d) * micro-batch size, so the grid decides only who computes on what.
  std::vector<BatchRows> step(const Dataset& dataset, std::int64_t first) const;
  /// Samples [0, count) once each, filled up with rows without targets so that all replicas have the same
  /// number of micro-batches.
  std::vector<BatchRows> sweep(const Dataset& dataset, std::int64_t count) const;

 private:
  std::int64_t micro_batch_, rows_;
  int micro_batches_, dp_size_, dp_rank_;
};

class TrainingBatches {
 public:
  /// Opens the token files. Throws ConfigurationError when none is given, DataError when one can't be used.
  TrainingBatches(const TrainSettings& settings, const RankPlan& plan);

  std::vector<BatchRows> read(std::int64_t first_sample) const { return replica_.step(train_, first_sample); }
  /// Input tokens of all ranks' samples in the same step, padding left out; every rank computes the same.
  std::int64_t tokens(std::int64_t first_sample) const { return train_.tokens(first_sample, global_batch_); }
  /// A line each for training and validation.
  std::string describe() const;
  bool has_validation() const { return valid_.has_value(); }
  std::vector<BatchRows> read_validation() const;

 private:
  ReplicaBatches replica_;
  Dataset train_;
  std::optional<Dataset> valid_;
  std::int64_t valid_samples_, global_batch_;
};

}  // namespace llama3d
