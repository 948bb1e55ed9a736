#pragma once
// Which samples a rank computes on, for training and validation.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/control_plane.hpp"
#include "data/dataset.hpp"
#include "options/settings.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// The micro-batches of one data-parallel rank.
class ReplicaBatches {
 public:
  explicit ReplicaBatches(const RankPlan& plan);

  /// A training step that begins at global sample `first`: micro-batch m of replica d takes the samples from
  /// first + (m * DP + d) * micro-batch size, so the grid decides only who computes on what.
  std::vector<BatchRows> step(const Dataset& dataset, std::int64_t first) const;
  /// Samples [begin, end) once each, filled up with rows without targets so that all replicas have the same
  /// number of micro-batches.
  std::vector<BatchRows> sweep(const Dataset& dataset, std::int64_t begin, std::int64_t end) const;
  /// Samples of one micro-batch of every replica.
  std::int64_t samples_at_once() const { return micro_batch_ * dp_size_; }

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
  /// A line each for training and validation, and one where they were made with different tokenizers.
  std::string describe() const;
  /// How samples are made of the token file, "stream" or "documents".
  std::string_view packing() const { return word_of(resolved(packing_, train_.file())); }
  /// Of the token files: the same on every rank that reads the same. See data/identity.hpp.
  const std::string& identity() const { return identity_; }
  const TokenFileInfo& tokens() const { return train_.file().info(); }
  bool has_validation() const { return valid_.has_value(); }
  /// Validation in parts of a bounded size: how many, and one of them.
  std::int64_t validation_parts() const;
  std::vector<BatchRows> read_validation(std::int64_t part) const;

 private:
  ReplicaBatches replica_;
  Dataset train_;
  std::optional<Dataset> valid_;
  std::int64_t validation_samples() const;

  Packing packing_;
  std::string identity_;
  std::int64_t valid_samples_, global_batch_;
};

/// Throws DataError on every rank where one has other token files than rank 0. Collective.
void expect_same_data(const TrainingBatches& batches, const TrainSettings& settings, ControlPlane& control);

}  // namespace llama3d
