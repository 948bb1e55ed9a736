#pragma once
// The architecture, sizes and constants of a model, as Hugging Face's config.json has them.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/architecture.hpp"

namespace llama3d {

/// Llama 3.1's stretching of the rotary frequencies ("rope_type": "llama3").
struct RopeScaling {
  double factor = 8;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  std::int64_t original_context = 8192;
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  std::string name;  ///< preset name, or path it was read from; for display
  const Architecture* architecture = &llama_architecture();
  std::int64_t vocabulary = 0;
  std::int64_t hidden = 0;
  std::int64_t feed_forward = 0;
  std::int64_t layers = 0;
  std::int64_t query_heads = 0;
  std::int64_t key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_positions = 0;
  double norm_epsilon = 1e-5;
  double rope_theta = 500000;
  std::optional<RopeScaling> rope_scaling;
  bool tied_embeddings = false;
  double initializer_range = 0.02;
  bool operator==(const ModelConfig&) const = default;

  /// All parameters, tied ones once. From the closed form, not the parameter table, so that each checks the
  /// other.
  std::int64_t parameters() const;
  /// Parameters of GEMMs: all but norms, biases and the input embedding; the head counts, tied or not.
  std::int64_t matrix_parameters() const;
  /// Model FLOPs of training on one token in a sequence of `sequence`: 6 for each matrix parameter, and
  /// 6 * layers * query_heads * head_dim * sequence for causal attention. Recomputation never counts.
  double training_flops_per_token(std::int64_t sequence) const;
};

/// A preset's name (`llama3-8b`), a config.json, or a Hugging Face folder with one.
/// Throws ConfigurationError for an unknown preset (with the nearest names), DataError for a missing or
/// broken file, ConfigurationError for a model that can't be trained here (an architecture that is none of
/// architectures(), a sliding window, other biases, activation or rope type, sizes that do not fit each
/// other), naming the file, the key, its value and what would be right.
ModelConfig load_model_config(const std::string& preset_or_path);
/// From the text of a config.json. `origin` names it in errors.
ModelConfig parse_model_config(const std::string& json, const std::string& origin);
/// A config.json that transformers loads.
std::string to_json(const ModelConfig& config);

/// A member of config.json in which two models differ, with its values.
struct ConfigDifference {
  std::string key, left, right;
  bool decides_tensors =
      false;  ///< which tensors there are and what they mean; not so rope_theta and the like
};
std::vector<ConfigDifference> differences(const ModelConfig& left, const ModelConfig& right);
std::vector<std::string> preset_names();

}  // namespace llama3d
