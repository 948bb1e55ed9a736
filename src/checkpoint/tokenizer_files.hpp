#pragma once
// The files of a Hugging Face folder that make its tokenizer.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tokenizer_name.hpp"

namespace llama3d {

/// Copies them from a folder into another, or a single tokenizer.model or tokenizer.json, which gets that
/// name. Returns the names. Throws DataError when there is none or one can't be copied.
std::vector<std::string> copy_tokenizer_files(const std::filesystem::path& from,
                                              const std::filesystem::path& to);

/// The folder's tokenizer.json and tokenizer.model, those that are there and can be read.
std::vector<TokenizerName> tokenizers_of(const std::filesystem::path& folder);
/// True when the folder has a chat template that is not Llama 3's.
bool has_other_chat_template(const std::filesystem::path& folder);
/// True when the folder holds a tokenizer.
bool has_tokenizer(const std::filesystem::path& folder);
/// True when copy_tokenizer_files() makes files of this name.
bool is_tokenizer_file(std::string_view name);

}  // namespace llama3d
