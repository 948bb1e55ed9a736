#include "data/generated_text.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace llama3d {

StopRules StopRules::of(const Tokenizer& tokenizer, const std::vector<std::string>& stops) {
  StopRules rules;
  rules.tokens.insert(tokenizer.end_of_text());
  // Llama 3's end of a turn, and of a message that waits for a tool's answer.
  for (const std::string_view name : {"<|eot_id|>", "<|eom_id|>"})
    if (const auto token = tokenizer.special_token(name)) rules.tokens.insert(*token);
  for (const std::string& stop : stops) {
    if (stop.empty())
      throw ConfigurationError(
          "`stop`: an empty text ends everything; give the text or special token to stop at");
    if (const auto token = tokenizer.special_token(stop))
      rules.tokens.insert(*token);
    else
      rules.texts.push_back(stop);
  }
  return rules;
}

bool GeneratedText::append(std::uint32_t token) {
  if (rules_->tokens.contains(token)) return true;
  const std::size_t before = bytes_.size();
  bytes_ += tokenizer_->decode(std::array{token});
  std::size_t end = std::string::npos;
  for (const std::string& stop : rules_->texts) {
    const std::size_t first = before < stop.size() ? 0 : before - stop.size() + 1;
    end = std::min(end, bytes_.find(stop, first));
  }
  if (end == std::string::npos) return false;
  bytes_.resize(end);
  return true;
}

std::string GeneratedText::take() {
  const std::string_view text(bytes_);
  std::size_t end = text.size();
  for (const std::string& stop : rules_->texts)
    for (std::size_t length = std::min(stop.size() - 1, text.size()); length > 0; --length)
      if (text.ends_with(std::string_view(stop).substr(0, length))) {
        end = std::min(end, text.size() - length);
        break;
      }
  return take_until(end - unfinished_character(text.substr(0, end)));
}

std::string GeneratedText::take_rest() {
  return take_until(bytes_.size());
}

std::string GeneratedText::take_until(std::size_t end) {
  if (end <= taken_) return {};
  const std::string text = replace_invalid_utf8(std::string_view(bytes_).substr(taken_, end - taken_));
  taken_ = end;
  return text;
}

}  // namespace llama3d
