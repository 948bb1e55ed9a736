#pragma once
// Text that grows token by token: where it ends, and how much of it can be shown.

#include <set>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.hpp"

namespace llama3d {

/// What ends a text; neither is part of it.
struct StopRules {
  std::set<std::uint32_t> tokens;
  std::vector<std::string> texts;

  /// End of text and of a turn, and `stops`: names of special tokens, other texts. Throws ConfigurationError
  /// for an empty one.
  static StopRules of(const Tokenizer& tokenizer, const std::vector<std::string>& stops);
};

class GeneratedText {
 public:
  /// Both must outlive the text.
  GeneratedText(const Tokenizer& tokenizer, const StopRules& rules)
      : tokenizer_(&tokenizer), rules_(&rules) {}

  /// True when the text ends with this token.
  bool append(std::uint32_t token);
  /// What can be shown since the last call: whole characters, and nothing that may turn out to begin a stop
  /// text. Bytes that are no UTF-8 are U+FFFD.
  std::string take();
  /// The rest of it, when no token follows.
  std::string take_rest();

 private:
  std::string take_until(std::size_t end);

  const Tokenizer* tokenizer_;
  const StopRules* rules_;
  std::string bytes_;
  std::size_t taken_ = 0;
};

}  // namespace llama3d
