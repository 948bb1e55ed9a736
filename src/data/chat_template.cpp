#include "data/chat_template.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "base/utf8.hpp"

namespace llama3d {
namespace {

using Tokens = std::vector<std::uint32_t>;

/// A question with the header of its answer, and the answer; the last one may be open.
struct Turn {
  Tokens source, target;
};

/// What Python's str.strip() takes off.
bool is_python_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

/// Bytes that are no UTF-8 stay: encoding tells of them.
std::string_view stripped(std::string_view text) {
  const auto space_at = [&](std::size_t begin, std::size_t end) -> bool {
    const std::string_view one = text.substr(begin, end - begin);
    return find_invalid_utf8(one) == std::string_view::npos &&
           is_python_space(character_at(one.data()).code_point);
  };
  while (!text.empty()) {
    std::size_t end = 1;
    while (end < text.size() && continues_character(text[end])) ++end;
    if (!space_at(0, end)) break;
    text.remove_prefix(end);
  }
  while (!text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && continues_character(text[begin])) --begin;
    if (!space_at(begin, text.size())) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

class Template {
 public:
  explicit Template(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer),
        start_header_(tokenizer.special_token("<|start_header_id|>")),
        end_header_(tokenizer.special_token("<|end_header_id|>")),
        end_of_turn_(tokenizer.special_token("<|eot_id|>")) {}

  bool has_tokens() const { return start_header_ && end_header_ && end_of_turn_; }
  std::uint32_t end_of_answer() const { return has_tokens() ? *end_of_turn_ : tokenizer_.end_of_text(); }

  std::vector<Turn> render(const Conversation& conversation, bool generation_prompt) const {
    std::vector<Turn> turns(1);
    turns.front().source.push_back(tokenizer_.begin_of_text());
    bool first = true;
    for (const Message& message : conversation) {
      header(message.role, std::exchange(first, false), turns.back().source);
      const bool answer = message.role == Role::assistant;
      Tokens& place = answer ? turns.back().target : turns.back().source;
      tokenizer_.encode(stripped(message.content), place);
      if (has_tokens() || answer) place.push_back(end_of_answer());
      if (answer) turns.emplace_back();
    }
    if (generation_prompt) header(Role::assistant, first, turns.back().source);
    return turns;
  }

 private:
  /// The two line feeds are no piece with what follows, which never begins with white space: the content may
  /// be encoded by itself.
  void header(Role role, bool first, Tokens& tokens) const {
    if (!has_tokens())
      return tokenizer_.encode(fmt::format("{}<|{}|>\n", first ? "" : "\n", name_of(role)), tokens);
    tokens.push_back(*start_header_);
    tokenizer_.encode(role == Role::tool ? "ipython" : name_of(role), tokens);
    tokens.push_back(*end_header_);
    tokenizer_.encode("\n\n", tokens);
  }

  const Tokenizer& tokenizer_;
  std::optional<std::uint32_t> start_header_, end_header_, end_of_turn_;
};

/// Cuts a turn to `room` tokens: LLaMA-Factory's infer_seqlen.
void cut(Turn& turn, std::size_t room) {
  const std::size_t source = turn.source.size(), target = turn.target.size();
  if (source + target <= room) return;
  std::size_t most = room;
  if (2 * target >= room)
    most = 2 * source < room
               ? room - source
               : static_cast<std::size_t>(static_cast<double>(room) * (static_cast<double>(target) /
                                                                       static_cast<double>(source + target)));
  turn.target.resize(std::min(most, target));
  turn.source.resize(std::min(room - turn.target.size(), source));
}

void append(const Tokens& tokens, bool learn, RenderedChat& chat) {
  chat.tokens.insert(chat.tokens.end(), tokens.begin(), tokens.end());
  chat.learn.resize(chat.tokens.size(), learn ? 1 : 0);
}

}  // namespace

LossOn loss_on_from(std::string_view word) {
  if (word == "assistant") return LossOn::assistant;
  if (word == "all") return LossOn::all;
  throw ConfigurationError(
      fmt::format("`loss_on {}` is unknown (no such choice); use assistant or all", word));
}

std::string_view word_of(LossOn choice) {
  return choice == LossOn::assistant ? "assistant" : "all";
}

RenderedChat render_chat(const Conversation& conversation, const Tokenizer& tokenizer,
                         bool generation_prompt) {
  RenderedChat chat;
  for (const Turn& turn : Template(tokenizer).render(conversation, generation_prompt)) {
    append(turn.source, false, chat);
    append(turn.target, true, chat);
  }
  return chat;
}

RenderedChat render_chat_for_training(const Conversation& conversation, const Tokenizer& tokenizer,
                                      std::int64_t cutoff, LossOn loss_on) {
  RenderedChat chat;
  for (Turn& turn : Template(tokenizer).render(conversation, false)) {
    if (cutoff > 0) {
      const std::size_t whole = turn.source.size() + turn.target.size();
      cut(turn, static_cast<std::size_t>(cutoff) - chat.tokens.size());
      chat.truncated = chat.truncated || turn.source.size() + turn.target.size() < whole;
    }
    append(turn.source, loss_on == LossOn::all, chat);
    append(turn.target, true, chat);
  }
  return chat;
}

std::uint32_t end_of_answer(const Tokenizer& tokenizer) {
  return Template(tokenizer).end_of_answer();
}

}  // namespace llama3d
