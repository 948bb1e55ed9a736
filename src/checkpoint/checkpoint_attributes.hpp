#pragma once
// The record of a checkpoint besides tensors.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/tokenizer_name.hpp"
#include "checkpoint/weight_origin.hpp"
#include "model/config.hpp"

namespace llama3d {

/// The position of a run.
struct TrainPosition {
  std::int64_t step = 0;              ///< steps done
  std::int64_t consumed_samples = 0;  ///< sequences read so far: the next global sample index
  std::int64_t tokens = 0;            ///< input tokens so far
};

/// The run that saved. A member is empty where the version that wrote the checkpoint did not record it.
struct RunRecord {
  TrainPosition position;
  std::string grid;  ///< "TP 2 x PP 1 x DP 4"
  std::map<std::string, std::int64_t> grid_sizes =
      {};                                    ///< by axis, "tp", "cp", ...; empty before there were four
  std::optional<std::uint64_t> seed;         ///< of initial weights and of the order of samples
  std::optional<std::int64_t> sequence;      ///< tokens
  std::optional<std::int64_t> global_batch;  ///< sequences, as resolved
  std::optional<std::string> data;           ///< identity of the token files, see data/identity.hpp
  std::optional<std::string> packing;        ///< as resolved
  std::optional<double> valid_fraction;
  std::optional<bool> separate_documents;
  TokenizerName tokenizer;    ///< of the token files
  std::string configuration;  ///< all options as resolved: the text of a JSON object
};

struct CheckpointAttributes {
  ModelConfig model;
  WeightOrigin origin;
  std::optional<RunRecord> run;  ///< none in a checkpoint that an import made

  /// A JSON object for write_global_view(), with the version of this program.
  std::string to_json() const;
  /// Throws JsonError for what to_json() did not make, and the errors of parse_model_config() and
  /// WeightOrigin::parse().
  static CheckpointAttributes parse(const std::string& json);
};

}  // namespace llama3d
