#pragma once
// Conversations as tokens.

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/conversation.hpp"
#include "data/tokenizer/tokenizer.hpp"

namespace llama3d {

struct RenderedChat {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> learn;  ///< 1 on the assistant's answers and the token that ends them
  bool truncated = false;           ///< something was cut off
};

/// Which tokens of a conversation are targets.
enum class LossOn { assistant, all };

LossOn loss_on_from(std::string_view word);
std::string_view word_of(LossOn choice);

/// What Hugging Face's apply_chat_template makes of Meta's template for Llama 3:
///   <|begin_of_text|>, then for each message <|start_header_id|>ROLE<|end_header_id|>, two line feeds, the
///   content without the white space around it (as Python's strip), <|eot_id|>; with `generation_prompt` the
///   header of an answer at the end. The ROLE of a tool's result is ipython, as in Llama 3.1's template and
///   in
/// LLaMA-Factory's for Llama 3.
/// Llama 3.1's template differs: it puts a system message with "Cutting Knowledge Date" and today's date
/// before all. It is not rendered: training data would depend on the day.
///
/// A tokenizer without these tokens, as the bytes, gets plain text: begin of text, then for each message a
/// line
/// "<|ROLE|>" and its content, a line feed between messages; answers are ended by end of text.
///
/// Names of special tokens in the content are text like any other. Throws DataError for content that is no
/// valid UTF-8 where the tokenizer needs it.
RenderedChat render_chat(const Conversation& conversation, const Tokenizer& tokenizer,
                         bool generation_prompt);

/// The same without a generation prompt, cut to `cutoff` tokens (0: not at all) as LLaMA-Factory does: turn
/// by turn, what is left is divided between the question and its answer in proportion to their lengths where
/// both are long, and a short one stays whole. What comes before an answer, headers too, is its question.
RenderedChat render_chat_for_training(const Conversation& conversation, const Tokenizer& tokenizer,
                                      std::int64_t cutoff, LossOn loss_on);

/// The token that ends an answer: <|eot_id|>, or end of text where there is none.
std::uint32_t end_of_answer(const Tokenizer& tokenizer);

}  // namespace llama3d
