#include "data/tokenizer/special_tokens.hpp"

#include <algorithm>
#include <utility>

namespace llama3d {

SpecialTokens::SpecialTokens(std::vector<SpecialToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const SpecialToken& a, const SpecialToken& b) {
    return a.name.size() > b.name.size();
  });
  for (const SpecialToken& token : tokens_)
    if (!token.name.empty() && first_bytes_.find(token.name.front()) == std::string::npos)
      first_bytes_ += token.name.front();
}

std::optional<std::uint32_t> SpecialTokens::find(std::string_view name) const {
  const auto found = std::find_if(tokens_.begin(), tokens_.end(),
                                  [&](const SpecialToken& token) { return token.name == name; });
  return found == tokens_.end() ? std::nullopt : std::optional(found->id);
}

std::optional<SpecialTokens::Place> SpecialTokens::first_in(std::string_view text, std::size_t begin) const {
  while ((begin = text.find_first_of(first_bytes_, begin)) != std::string_view::npos) {
    for (const auto& [name, id] : tokens_)
      if (text.substr(begin).starts_with(name)) return Place{begin, name.size(), id};
    ++begin;
  }
  return std::nullopt;
}

std::string_view SpecialTokens::name_of(std::uint32_t id) const {
  std::string_view name;
  for (const SpecialToken& token : tokens_)
    if (token.id == id) name = token.name;  // the longest come first
  return name;
}

}  // namespace llama3d
