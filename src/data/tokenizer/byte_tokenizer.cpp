#include "data/tokenizer/byte_tokenizer.hpp"

#include <algorithm>

namespace llama3d {

ByteTokenizer::ByteTokenizer() : special_({{"<|begin_of_text|>", 256}, {"<|end_of_text|>", 257}}) {}

std::optional<std::uint32_t> ByteTokenizer::special_token(std::string_view name) const {
  return special_.find(name);
}

void ByteTokenizer::encode(std::string_view text, std::vector<std::uint32_t>& tokens,
                           const EncodeOptions& options) const {
  special_.split(text, options.special_tokens, tokens, [&](std::string_view part) {
    const std::size_t before = tokens.size();
    tokens.resize(before + part.size());
    std::transform(part.begin(), part.end(), tokens.begin() + static_cast<std::ptrdiff_t>(before),
                   [](char c) { return static_cast<unsigned char>(c); });
  });
}

std::string ByteTokenizer::decode(std::span<const std::uint32_t> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const std::uint32_t token : tokens)
    if (token < 256) text.push_back(static_cast<char>(static_cast<unsigned char>(token)));
  return text;
}

}  // namespace llama3d
