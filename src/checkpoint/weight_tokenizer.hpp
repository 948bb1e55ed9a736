#pragma once
// Which tokenizer belongs to weights: the one of the tokens that they were last trained on; where nobody says
// that, one of the Hugging Face folder that they came from.

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/weight_source.hpp"
#include "io/tokens/token_file.hpp"

namespace llama3d {

/// A line for whoever uses the weights with a tokenizer, any of whose files may be given, that is known to be
/// another than theirs; else empty. `begin` is what the line begins with, as "`data` was made with".
std::string tokenizer_doubt(const WeightSource& source, const std::string& begin,
                            const std::vector<TokenizerName>& files);
/// The same of tokens, and model_doubts().
std::vector<std::string> doubts(const WeightSource& source, const ModelConfig& model,
                                const TokenFileInfo& tokens);

/// In the folder of the weights, or the one that they came from.
struct TokenizerPlace {
  std::string tokenizer;         ///< as make_tokenizer() takes it; empty: none is there
  std::filesystem::path folder;  ///< that has it; empty for bytes
};
/// The weights' own as far as it can be told, else the first there is.
TokenizerPlace find_tokenizer(const WeightSource& source);

/// True when the weights came with a tokenizer and were then trained on bytes: its ids of begin and end of
/// text are theirs no more.
bool left_for_bytes(const WeightSource& source);

}  // namespace llama3d
