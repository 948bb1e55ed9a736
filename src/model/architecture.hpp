#pragma once
// What tells apart the dense decoder architectures that train here, as data. A model has the arithmetic of
// Llama 3 with what is named here beside it; sizes and constants are in its config.json (ModelConfig).

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace llama3d {

struct Architecture {
  std::string_view model_type;  ///< of config.json
  std::string_view class_name;  ///< in transformers, as config.json's "architectures" has it
  bool qkv_bias = false;        ///< the projections to queries, keys and values have biases
  bool head_norm = false;       ///< query and key heads are normalized before the rotary embedding
  /// Members of config.json that say what an architecture of this type may lack, as JSON: written by exports.
  std::string_view constants = "{}";

  // What transformers takes where config.json is silent.
  std::optional<std::int64_t> key_value_heads = {};  ///< none: as many as query heads
  std::optional<std::int64_t> head_dim = {};         ///< none: hidden size / query heads
  std::int64_t max_positions = 2048;
  /// Of "sliding_window", which has effect in such architectures; none: it has no effect.
  std::optional<std::int64_t> sliding_window = {};
  bool window_switch =
      false;  ///< "use_sliding_window" says whether there is a window; if silent, there is none
};

/// All of them, Llama first.
std::span<const Architecture> architectures();
const Architecture& llama_architecture();
/// Null for one that is unknown.
const Architecture* find_architecture(std::string_view model_type);

}  // namespace llama3d
