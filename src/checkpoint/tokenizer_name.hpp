#pragma once
// The tokenizer that made the tokens of a token file or of a checkpoint's training.

#include <string>

namespace llama3d {

struct TokenizerName {
  std::string name;  ///< "bytes" or a file's name; empty or "unknown" where nobody says
  std::string hash;  ///< SHA-256 of the file; empty for bytes and in older token files

  bool known() const { return !name.empty() && name != "unknown"; }
  std::string to_string() const;
};

/// True when the two are known to be different files. These may yet hold the same tokenizer.
bool differ(const TokenizerName& left, const TokenizerName& right);

}  // namespace llama3d
