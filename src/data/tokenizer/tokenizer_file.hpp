#pragma once
// The files that hold a Llama 3 tokenizer: Meta's tokenizer.model and Hugging Face's tokenizer.json.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/byte_pairs.hpp"
#include "data/tokenizer/special_tokens.hpp"

namespace llama3d {

struct TokenizerDefinition {
  Vocabulary vocabulary;
  std::vector<SpecialToken> special_tokens;  ///< begin and end of text among them
  std::string name;                          ///< of the file
  std::string file_hash;                     ///< SHA-256
  std::string doubt;                         ///< why it may not be what was meant; empty: nothing
};

/// The tokenizer.json or tokenizer.model of a folder, or the file itself. Throws DataError where a folder has
/// none, or one that lies outside of it (base/model_folder.hpp).
std::filesystem::path find_tokenizer_file(const std::filesystem::path& path);

/// Reads a file of either kind, told apart by content, or that of a folder. Throws DataError, naming file and
/// reason.
TokenizerDefinition read_tokenizer_file(const std::filesystem::path& path);

/// A line a token, base64 and rank; the special tokens are those of Llama 3 and 3.1, which the file does not
/// name. A file cut at the end of a line can't be told from a smaller vocabulary: any other number of ranks
/// than Llama 3's leaves a doubt. Throws std::runtime_error, as does the next, with what is wrong.
TokenizerDefinition parse_tiktoken(std::string_view text);

/// A byte-level BPE with Llama 3's pre-tokenizer.
TokenizerDefinition parse_tokenizer_json(std::string_view text);

/// What base64 stands for, into `bytes`; false when it is none.
bool decode_base64(std::string_view text, std::string& bytes);

}  // namespace llama3d
