#pragma once
// The facts of a Hugging Face folder besides sizes and weights. Checkpoints keep them from the first run on,
// so that an export can give it back.

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/tokenizer_name.hpp"

namespace llama3d {

struct WeightOrigin {
  std::string folder;     ///< absolute path; empty: weights that began at random
  std::string token_ids;  ///< JSON object: bos_token_id, eos_token_id, pad_token_id, those that are given
  std::string generation_config;          ///< text of generation_config.json, or empty
  std::vector<TokenizerName> tokenizers;  ///< of the folder, the same one in all files as far as is known

  bool known() const { return !folder.empty(); }
  /// The ids that either file names as ends of a text.
  std::set<std::int64_t> end_tokens() const;
  /// JSON object, the checkpoint attribute `huggingface`.
  std::string to_json() const;
  /// Throws DataError naming `place` for anything to_json() did not make.
  static WeightOrigin parse(const std::string& json, const std::string& place);
  /// Reads a Hugging Face folder. Throws DataError for files that are no JSON objects or implausibly large.
  static WeightOrigin of_folder(const std::filesystem::path& folder);
};

}  // namespace llama3d
