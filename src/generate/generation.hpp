#pragma once
// A generation job, from settings to the last token: `llama3d generate` without its texts.

#include <string>
#include <vector>

#include "checkpoint/weight_source.hpp"
#include "generate/generator.hpp"

namespace llama3d {

struct GenerationSettings {
  std::string load;              ///< checkpoint or Hugging Face folder
  std::string model;             ///< preset, config.json or folder; empty: that of the weights
  int tp_size = 1, pp_size = 1;  ///< the ranks beyond tp share the prompts
  const PrecisionRecipe* precision = &precision_of(DType::fp32);
  std::int64_t batch_size = 16;  ///< sequences a replica decodes at once
  DecodingOptions decoding;
};

/// Bounds that no single option's type can express. Throws ConfigurationError naming the option.
void check_settings(const GenerationSettings& settings);

/// The model that will generate. Throws as what it reads from does.
ModelConfig model_of(const GenerationSettings& settings, const WeightSource& weights);

/// Continues `prompts` with the weights of settings.load, replica r those with number r, r + DP, .... The
/// consumer is called on the first rank of every replica. Collective; CollectiveErrors as in train(), and
/// DataError where a rank has other prompts than rank 0.
GenerationReport generate(const GenerationSettings& settings, const WeightSource& weights,
                          std::vector<std::vector<std::uint32_t>> prompts, Runtime& runtime,
                          const TokenConsumer& consumer);

}  // namespace llama3d
