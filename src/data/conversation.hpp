#pragma once
// Conversations, and the two ways in which instruction data writes them down, as LLaMA-Factory reads them.

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

enum class Role { system, user, assistant, tool };

std::string_view name_of(Role role);

struct Message {
  Role role;
  std::string content;
};
using Conversation = std::vector<Message>;

/// How a file writes its documents down.
enum class InputFormat {
  automatic,  ///< by the file's name and its first records
  text,       ///< plain text
  jsonl,      ///< JSON records with a text field
  alpaca,     ///< JSON records with instruction, input, output, and system and history where they have them
  sharegpt,   ///< JSON records with conversations (from, value) or messages (role, content)
};

InputFormat input_format_from(std::string_view word);
std::string_view word_of(InputFormat format);

inline bool holds_conversations(InputFormat format) {
  return format == InputFormat::alpaca || format == InputFormat::sharegpt;
}

/// A record that can't be used; what() says why, without its place.
struct BadRecord : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The conversation of a JSON record. Throws BadRecord.
///   alpaca: the query is instruction and input, a line feed between them where both have text (one with an
///     input needs no instruction); the pairs of `history` go before it, `system` before all.
///   sharegpt: after a system message, or else the record's "system" (an empty one is none), questions
///   (human,
///     user, observation, tool, ipython) and answers (gpt, assistant) take turns, answers last. Any other
///     order is a bad record, and so is one with "tools", which would have to be written into the prompt, or
///     a message with "tool_calls" or a "function_call". So is a turn of the role function_call: its content
///     is JSON that LLaMA-Factory writes anew in the words of the model's template.
/// Where the last answer is `optional`, as in a file of questions, a record may do without it.
enum class LastAnswer { required, optional };
Conversation parse_conversation(std::string_view record, InputFormat format,
                                LastAnswer last_answer = LastAnswer::required);

/// The text of a JSON record with a text field. Throws BadRecord.
std::string parse_text_record(std::string_view record, const std::string& field);

/// What a JSON record looks like; automatic when it is none of these, or no JSON.
InputFormat format_of_record(std::string_view record, const std::string& text_field);

}  // namespace llama3d
