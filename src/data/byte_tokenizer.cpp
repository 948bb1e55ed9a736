#include "data/byte_tokenizer.hpp"

#include <algorithm>

namespace llama3d {

void ByteTokenizer::encode(std::string_view text, std::vector<std::uint32_t>& tokens) const {
  const std::size_t before = tokens.size();
  tokens.resize(before + text.size());
  std::transform(text.begin(), text.end(), tokens.begin() + static_cast<std::ptrdiff_t>(before),
                 [](char c) { return static_cast<unsigned char>(c); });
}

std::string ByteTokenizer::decode(std::span<const std::uint32_t> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const std::uint32_t token : tokens)
    if (token < 256) text.push_back(static_cast<char>(static_cast<unsigned char>(token)));
  return text;
}

}  // namespace llama3d
