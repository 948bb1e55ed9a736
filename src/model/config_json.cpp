// config.json, both ways. Keys and defaults are those of transformers, in the form of its version 4
// (rope_theta beside rope_scaling) and of its version 5 (both inside rope_parameters).
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "model/config.hpp"

namespace llama3d {
namespace {

using nlohmann::json;

/// Typed access to a JSON object that knows what to call itself in errors. Null counts as absent, as in
/// Python.
class Section {
 public:
  Section(const json& object, std::string origin, std::string prefix = "")
      : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

  const json* find(const char* key) const {
    const auto entry = object_.find(key);
    return entry == object_.end() || entry->is_null() ? nullptr : &*entry;
  }
  bool has(const char* key) const { return find(key) != nullptr; }
  /// Null is written, which says more than nothing where silence has a meaning.
  bool is_null(const char* key) const {
    const auto entry = object_.find(key);
    return entry != object_.end() && entry->is_null();
  }

  std::int64_t size(const char* key, std::optional<std::int64_t> fallback = {}) const {
    const json* value = find(key);
    if (!value) return fallback ? *fallback : missing<std::int64_t>(key);
    if (!value->is_number_integer()) broken(key, *value, "an integer");
    const bool huge = value->is_number_unsigned() && value->get<std::uint64_t>() > largest_size;
    if (huge || value->get<std::int64_t>() <= 0 || value->get<std::int64_t>() > largest_size)
      refuse(key, *value, fmt::format("an integer from 1 to {}", largest_size));
    return value->get<std::int64_t>();
  }
  /// Finite and above zero.
  double positive(const char* key, std::optional<double> fallback = {}) const {
    const json* value = find(key);
    if (!value) return fallback ? *fallback : missing<double>(key);
    if (!value->is_number()) broken(key, *value, "a number");
    const double number = value->get<double>();
    if (!std::isfinite(number) || number <= 0) refuse(key, *value, "a finite number above 0");
    return number;
  }
  bool flag(const char* key, bool fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) broken(key, *value, "true or false");
    return value->get<bool>();
  }
  std::string text(const char* key, std::optional<std::string> fallback = {}) const {
    const json* value = find(key);
    if (!value) return fallback ? *fallback : missing<std::string>(key);
    if (!value->is_string()) broken(key, *value, "a string");
    return value->get<std::string>();
  }
  /// The object under `key`, which must be there.
  Section section(const char* key) const {
    const json& value = *find(key);
    if (!value.is_object()) broken(key, value, "an object");
    return Section(value, origin_, prefix_ + key + ".");
  }

  /// The value is well-formed but no model of ours has it.
  [[noreturn]] void refuse(const char* key, const json& value, const std::string& wanted) const {
    throw ConfigurationError(fmt::format("{}: {}{} is {} (not supported); it must be {}", origin_, prefix_,
                                         key, json_excerpt(value), wanted));
  }
  const std::string& origin() const { return origin_; }

 private:
  static constexpr std::int64_t largest_size = std::numeric_limits<std::int32_t>::max();

  template <class T>
  [[noreturn]] T missing(const char* key) const {
    throw DataError(
        fmt::format("{}: {}{} is missing (config.json is incomplete); add it", origin_, prefix_, key));
  }
  [[noreturn]] void broken(const char* key, const json& value, const char* wanted) const {
    throw DataError(fmt::format("{}: {}{} is {} (wrong JSON type {}); it must be {}", origin_, prefix_, key,
                                json_excerpt(value), value.type_name(), wanted));
  }

  const json& object_;
  std::string origin_, prefix_;
};

json parse_object(const std::string& text, const std::string& origin) {
  try {
    return parse_json_object(text);
  } catch (const JsonError& error) {
    throw DataError(fmt::format(
        "{} can't be read ({}); is the file cut short, or something other than the model's config.json?",
        origin, error.what()));
  }
}

/// The type of config.json, as long as the model has all of what that says and nothing else.
const Architecture& parse_architecture(const Section& root) {
  const std::string type = root.text("model_type");
  const Architecture* architecture = find_architecture(type);
  if (!architecture) {
    std::vector<std::string> words;
    for (const Architecture& one : architectures()) words.push_back(fmt::format("\"{}\"", one.model_type));
    root.refuse("model_type", type, fmt::format("{}", fmt::join(words, " or ")));
  }
  if (const json* names = root.find("architectures"))
    if (*names != json::array({architecture->class_name}))
      root.refuse("architectures", *names, fmt::format("[\"{}\"]", architecture->class_name));
  if (const std::string activation = root.text("hidden_act", "silu"); activation != "silu")
    root.refuse("hidden_act", activation, "\"silu\"");
  // Where there are biases by nature, they are on queries, keys and values alone, whatever this says.
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (!architecture->qkv_bias && root.flag(key, false))
      root.refuse(key, true, "false: such biases are not supported");
  if (const json* value = root.find("quantization_config"))
    root.refuse("quantization_config", *value, "absent: start from the weights before quantization");
  return *architecture;
}

/// A window that leaves tokens out: attention here sees all before.
void refuse_window(const Section& root, const ModelConfig& config) {
  const Architecture& architecture = *config.architecture;
  if (architecture.window_switch && root.flag("use_sliding_window", false))
    root.refuse("use_sliding_window", true, "false: a sliding window is not supported");
  if (architecture.sliding_window && !root.is_null("sliding_window")) {
    const std::int64_t window = root.size("sliding_window", architecture.sliding_window);
    if (window < config.max_positions)
      root.refuse(
          "sliding_window", window,
          fmt::format("null, or at least max_position_embeddings, {}: a sliding window is not supported",
                      config.max_positions));
  }
  if (const json* types = root.find("layer_types")) {
    if (!types->is_array()) root.refuse("layer_types", *types, "an array of \"full_attention\"");
    for (const json& type : *types)
      if (type != "full_attention") root.refuse("layer_types", type, "\"full_attention\" for every layer");
  }
}

RopeScaling parse_llama3_scaling(const Section& rope) {
  RopeScaling scaling;
  scaling.factor = rope.positive("factor");
  scaling.low_frequency_factor = rope.positive("low_freq_factor");
  scaling.high_frequency_factor = rope.positive("high_freq_factor");
  scaling.original_context = rope.size("original_max_position_embeddings");
  if (scaling.factor < 1) rope.refuse("factor", scaling.factor, "at least 1");
  if (scaling.high_frequency_factor <= scaling.low_frequency_factor)
    rope.refuse("high_freq_factor", scaling.high_frequency_factor,
                fmt::format("above low_freq_factor, {}", scaling.low_frequency_factor));
  return scaling;
}

/// rope_type inside rope_parameters or rope_scaling; "type" is its older name.
void parse_rope_type(const Section& rope, ModelConfig& config) {
  const char* key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(key, "default");
  if (type == "llama3")
    config.rope_scaling = parse_llama3_scaling(rope);
  else if (type != "default")
    rope.refuse(key, type, "\"default\" or \"llama3\"");
  if (rope.positive("partial_rotary_factor", 1) != 1)
    rope.refuse("partial_rotary_factor", *rope.find("partial_rotary_factor"), "1");
}

void parse_rope(const Section& root, ModelConfig& config) {
  constexpr double default_theta = 10000;  // LlamaConfig's, for a file that is silent
  config.rope_theta = root.positive("rope_theta", default_theta);
  config.rope_scaling.reset();
  if (root.has("rope_parameters")) {
    const Section rope = root.section("rope_parameters");
    const double theta = rope.positive("rope_theta", config.rope_theta);
    if (root.has("rope_theta") && theta != config.rope_theta)
      rope.refuse("rope_theta", theta, fmt::format("{} as the rope_theta beside it", config.rope_theta));
    config.rope_theta = theta;
    parse_rope_type(rope, config);
    if (root.has("rope_scaling")) {
      ModelConfig other;
      parse_rope_type(root.section("rope_scaling"), other);
      if (other.rope_scaling != config.rope_scaling)
        root.refuse("rope_scaling", *root.find("rope_scaling"), "the same as rope_parameters, or absent");
    }
  } else if (root.has("rope_scaling")) {
    parse_rope_type(root.section("rope_scaling"), config);
  }
}

void parse_sizes(const Section& root, ModelConfig& config) {
  config.vocabulary = root.size("vocab_size");
  config.hidden = root.size("hidden_size");
  config.feed_forward = root.size("intermediate_size");
  config.layers = root.size("num_hidden_layers");
  // Every layer costs memory before its weights are looked for: names and shapes of its tensors.
  constexpr std::int64_t most_layers = 10'000;
  if (config.layers > most_layers)
    root.refuse("num_hidden_layers", config.layers, fmt::format("at most {}", most_layers));
  config.query_heads = root.size("num_attention_heads");
  const Architecture& architecture = *config.architecture;
  config.key_value_heads =
      root.size("num_key_value_heads", architecture.key_value_heads.value_or(config.query_heads));
  config.max_positions = root.size("max_position_embeddings", architecture.max_positions);
  if (!root.has("head_dim") && !architecture.head_dim && config.hidden % config.query_heads != 0)
    root.refuse(
        "hidden_size", config.hidden,
        fmt::format("a multiple of num_attention_heads, {}, or head_dim be given", config.query_heads));
  config.head_dim = root.size("head_dim", architecture.head_dim.value_or(config.hidden / config.query_heads));
}

void check_sizes(const Section& root, const ModelConfig& config) {
  if (config.query_heads % config.key_value_heads != 0)
    root.refuse("num_key_value_heads", config.key_value_heads,
                fmt::format("a divisor of num_attention_heads, {}", config.query_heads));
  if (config.head_dim % 2 != 0)
    root.refuse("head_dim", config.head_dim, "even: rotary embeddings turn pairs of values");
  // In double, because the sizes of a nonsensical file overflow the integers used everywhere else.
  const auto real = [](std::int64_t size) { return static_cast<double>(size); };
  const double layer =
      real(config.hidden) * (2 * real(config.query_heads + config.key_value_heads) * real(config.head_dim) +
                             3 * real(config.feed_forward));
  const double total = real(config.layers) * layer + 2 * real(config.vocabulary) * real(config.hidden);
  constexpr double most_parameters = 1e15;
  if (total > most_parameters)
    throw ConfigurationError(
        fmt::format("{}: the sizes make a model of {:.2g} parameters (more than {:.0e}); "
                    "check hidden_size, intermediate_size and num_hidden_layers",
                    root.origin(), total, most_parameters));
}

}  // namespace

ModelConfig parse_model_config(const std::string& text, const std::string& origin) {
  const json document = parse_object(text, origin);
  const Section root(document, origin);
  ModelConfig config;
  config.architecture = &parse_architecture(root);
  config.name = origin;
  parse_sizes(root, config);
  refuse_window(root, config);
  parse_rope(root, config);
  config.norm_epsilon = root.positive("rms_norm_eps", 1e-6);
  config.tied_embeddings = root.flag("tie_word_embeddings", false);
  config.initializer_range = root.positive("initializer_range", 0.02);
  check_sizes(root, config);
  return config;
}

std::string to_json(const ModelConfig& config) {
  // The form of transformers 4, which version 5 reads too.
  nlohmann::ordered_json out = {
      {"architectures", nlohmann::ordered_json::array({config.architecture->class_name})},
      {"model_type", config.architecture->model_type},
      {"vocab_size", config.vocabulary},
      {"hidden_size", config.hidden},
      {"intermediate_size", config.feed_forward},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.query_heads},
      {"num_key_value_heads", config.key_value_heads},
      {"head_dim", config.head_dim},
      {"max_position_embeddings", config.max_positions},
      {"hidden_act", "silu"},
      {"rms_norm_eps", config.norm_epsilon},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", nullptr},
      {"tie_word_embeddings", config.tied_embeddings},
      {"initializer_range", config.initializer_range},
  };
  out.update(parse_json<nlohmann::ordered_json>(std::string(config.architecture->constants)));
  if (const auto& scaling = config.rope_scaling)
    out["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", scaling->factor},
                           {"low_freq_factor", scaling->low_frequency_factor},
                           {"high_freq_factor", scaling->high_frequency_factor},
                           {"original_max_position_embeddings", scaling->original_context}};
  return out.dump(2) + "\n";
}

std::vector<ConfigDifference> differences(const ModelConfig& left, const ModelConfig& right) {
  const json ours = parse_json(to_json(left)), theirs = parse_json(to_json(right));
  std::vector<ConfigDifference> found;
  for (const auto& [key, value] : ours.items()) {
    // What other architectures do not have follows from their type, which comes first.
    const auto other = theirs.find(key);
    if (other == theirs.end() || *other == value) continue;
    const bool decides = key.starts_with("num_") || key.ends_with("_size") || key == "head_dim" ||
                         key == "tie_word_embeddings" || key == "model_type";
    found.push_back({key, value.dump(), other->dump(), decides});
  }
  return found;
}

}  // namespace llama3d
