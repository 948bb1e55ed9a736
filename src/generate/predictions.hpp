#pragma once
// Answers to a list of questions, to a file: what LLaMA-Factory calls generated_predictions.jsonl.

#include <filesystem>
#include <functional>
#include <vector>

#include "data/generated_text.hpp"
#include "data/prompt_records.hpp"
#include "generate/generation.hpp"

namespace llama3d {

struct PredictionProgress {
  std::int64_t done = 0, total = 0;  ///< questions of this replica
  std::int64_t new_tokens = 0;
};

/// Answers every record by the chat template and writes `output`, a JSON line a record in their order:
/// {"prompt", "predict", "label"}, the prompt with its special tokens by name. The file is there when all is
/// done, not before. `progress` is called on rank 0 after every token. Collective; CollectiveErrors as in
/// train().
GenerationReport predict(const GenerationSettings& settings, const WeightSource& weights,
                         const std::vector<PromptRecord>& records, const Tokenizer& tokenizer,
                         const StopRules& rules, const std::filesystem::path& output, Runtime& runtime,
                         const std::function<void(const PredictionProgress&)>& progress);

}  // namespace llama3d
