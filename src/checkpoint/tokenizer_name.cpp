#include "checkpoint/tokenizer_name.hpp"

#include <fmt/format.h>

namespace llama3d {

std::string TokenizerName::to_string() const {
  return hash.empty() ? name : fmt::format("{} (SHA-256 {}...)", name, hash.substr(0, 8));
}

bool differ(const TokenizerName& left, const TokenizerName& right) {
  if (!left.known() || !right.known()) return false;
  return left.hash.empty() || right.hash.empty() ? left.name != right.name : left.hash != right.hash;
}

}  // namespace llama3d
