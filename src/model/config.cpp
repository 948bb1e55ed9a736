#include "model/config.hpp"

#include <fmt/ranges.h>

#include <stdexcept>
#include <system_error>

#include "base/error.hpp"
#include "base/model_folder.hpp"
#include "model/presets.hpp"

namespace llama3d {
namespace {

/// Parameters of the GEMMs of one layer: q, k, v and output projections, gate, up and down.
std::int64_t layer_matrices(const ModelConfig& c) {
  const std::int64_t query = c.query_heads * c.head_dim;
  const std::int64_t key_value = c.key_value_heads * c.head_dim;
  return c.hidden * (query + 2 * key_value) + query * c.hidden + 3 * c.hidden * c.feed_forward;
}

/// Of a file that was named, wherever it may link to.
std::string read_config(const std::filesystem::path& path) {
  constexpr std::uintmax_t largest = 1'000'000;  // of a few thousand bytes usually
  try {
    return read_file(path, largest);
  } catch (const std::runtime_error& problem) {
    throw DataError(fmt::format("{} can't be used ({}); name a preset, a config.json or a folder with one",
                                path.string(), problem.what()));
  }
}

[[noreturn]] void throw_unknown_model(const std::string& name) {
  const auto nearest = nearest_presets(name, 3);
  throw ConfigurationError(
      nearest.empty()
          ? fmt::format("model \"{}\" is unknown (neither a preset nor a file or folder); presets are {}",
                        name, fmt::join(preset_names(), ", "))
          : fmt::format("model \"{}\" is unknown (neither a preset nor a file or folder); did you mean {}?",
                        name, fmt::join(nearest, " or ")));
}

}  // namespace

std::int64_t ModelConfig::matrix_parameters() const {
  return layers * layer_matrices(*this) + vocabulary * hidden;
}

std::int64_t ModelConfig::parameters() const {
  const std::int64_t norms = (2 * layers + 1) * hidden,
                     head_norms = architecture->head_norm ? layers * 2 * head_dim : 0,
                     biases =
                         architecture->qkv_bias ? layers * (query_heads + 2 * key_value_heads) * head_dim : 0,
                     input_embedding = tied_embeddings ? 0 : vocabulary * hidden;
  return matrix_parameters() + norms + head_norms + biases + input_embedding;
}

double ModelConfig::training_flops_per_token(std::int64_t sequence) const {
  const double attention = 6.0 * static_cast<double>(layers) * static_cast<double>(query_heads) *
                           static_cast<double>(head_dim) * static_cast<double>(sequence);
  return 6.0 * static_cast<double>(matrix_parameters()) + attention;
}

ModelConfig load_model_config(const std::string& preset_or_path) {
  if (const auto preset = find_preset(preset_or_path)) {
    ModelConfig config = parse_model_config(std::string(preset->json), "preset " + preset_or_path);
    config.name = preset_or_path;
    return config;
  }
  std::filesystem::path path = preset_or_path;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    path /= "config.json";
    if (!std::filesystem::exists(path, ignored))
      throw DataError(
          fmt::format("{} is missing (the folder {} is no Hugging Face model folder); name a preset, a "
                      "config.json or a folder with one",
                      path.string(), preset_or_path));
    return parse_model_config(read_model_file(preset_or_path, "config.json"), path.string());
  } else if (!std::filesystem::exists(path, ignored)) {
    const bool looks_like_path = preset_or_path.find('/') != std::string::npos || path.extension() == ".json";
    if (!looks_like_path) throw_unknown_model(preset_or_path);
    throw DataError(
        fmt::format("{} is missing (no such file or folder); name a preset, a config.json or a folder "
                    "with one",
                    preset_or_path));
  }
  return parse_model_config(read_config(path), path.string());
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : embedded_presets()) names.emplace_back(preset.name);
  return names;
}

}  // namespace llama3d
