#include "model/architecture.hpp"

#include <algorithm>
#include <array>

namespace llama3d {
namespace {

constexpr std::array<Architecture, 4> known{{
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .constants = R"({"attention_bias": false, "mlp_bias": false})"},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .constants = R"({"sliding_window": null})",
     .key_value_heads = 8,
     .max_positions = 131072,
     .sliding_window = 4096},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .qkv_bias = true,
     .constants = R"({"use_sliding_window": false})",
     .key_value_heads = 32,
     .max_positions = 32768,
     .window_switch = true},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .head_norm = true,
     .constants = R"({"attention_bias": false, "use_sliding_window": false})",
     .key_value_heads = 32,
     .head_dim = 128,
     .max_positions = 32768,
     .window_switch = true},
}};

}  // namespace

std::span<const Architecture> architectures() {
  return known;
}

const Architecture& llama_architecture() {
  return known.front();
}

const Architecture* find_architecture(std::string_view model_type) {
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const Architecture& a) { return a.model_type == model_type; });
  return found == known.end() ? nullptr : &*found;
}

}  // namespace llama3d
