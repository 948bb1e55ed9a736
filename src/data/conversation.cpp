#include "data/conversation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/printable.hpp"

namespace llama3d {
namespace {

using nlohmann::json;

constexpr std::array formats = {
    std::pair{InputFormat::automatic, "auto"},    std::pair{InputFormat::text, "text"},
    std::pair{InputFormat::jsonl, "jsonl"},       std::pair{InputFormat::alpaca, "alpaca"},
    std::pair{InputFormat::sharegpt, "sharegpt"},
};

constexpr std::array roles = {
    std::pair{"human", Role::user},       std::pair{"user", Role::user},
    std::pair{"gpt", Role::assistant},    std::pair{"assistant", Role::assistant},
    std::pair{"observation", Role::tool}, std::pair{"tool", Role::tool},
    std::pair{"ipython", Role::tool},     std::pair{"system", Role::system},
};

json parse_object(std::string_view record) {
  try {
    return parse_json_object(record);
  } catch (const JsonError& error) {
    throw BadRecord(error.what());
  }
}

/// The string under `name`.
std::string& text_in(json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) throw BadRecord(fmt::format("no \"{}\"", name));
  if (!found->is_string())
    throw BadRecord(fmt::format("\"{}\" is a JSON {}, not a string", name, found->type_name()));
  return found->get_ref<std::string&>();
}

/// Empty where it is not there, or null.
std::string optional_text_in(json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return {};
  return std::move(text_in(object, name));
}

void add_history(json& record, Conversation& conversation) {
  const auto history = record.find("history");
  if (history == record.end() || history->is_null()) return;
  if (!history->is_array())
    throw BadRecord(fmt::format("\"history\" is a JSON {}, not an array", history->type_name()));
  for (json& turn : *history) {
    if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string())
      throw BadRecord("a turn of \"history\" is no pair of strings");
    conversation.push_back({Role::user, std::move(turn[0].get_ref<std::string&>())});
    conversation.push_back({Role::assistant, std::move(turn[1].get_ref<std::string&>())});
  }
}

Conversation from_alpaca(json record, LastAnswer last_answer) {
  Conversation conversation;
  const std::string input = optional_text_in(record, "input");
  std::string query =
      input.empty() ? std::move(text_in(record, "instruction")) : optional_text_in(record, "instruction");
  std::string output = last_answer == LastAnswer::required ? std::move(text_in(record, "output"))
                                                           : optional_text_in(record, "output");
  if (std::string system = optional_text_in(record, "system"); !system.empty())
    conversation.push_back({Role::system, std::move(system)});
  add_history(record, conversation);
  if (!query.empty() && !input.empty()) query += '\n';
  query += input;
  if (query.empty() && output.empty()) throw BadRecord("neither a question nor an answer");
  conversation.push_back({Role::user, std::move(query)});
  if (last_answer == LastAnswer::required || !output.empty())
    conversation.push_back({Role::assistant, std::move(output)});
  return conversation;
}

Role role_of(const std::string& word) {
  const auto found = std::find_if(roles.begin(), roles.end(), [&](const auto& r) { return r.first == word; });
  if (word == "function_call")
    throw BadRecord(
        "a turn of role \"function_call\", which is not supported (it would have to be rewritten)");
  if (found == roles.end())
    throw BadRecord(
        fmt::format("role \"{}\" is unknown; it must be system, human or user, gpt or assistant, "
                    "observation, tool or ipython",
                    printable(word, 40)));
  return found->second;
}

/// Questions and answers in turn, from the message at `begin` on.
void check_turns(const Conversation& conversation, std::size_t begin, LastAnswer last_answer) {
  const std::size_t turns = conversation.size() - begin;
  if (turns == 0) throw BadRecord("no messages");
  for (std::size_t i = 0; i < turns; ++i) {
    const Role role = conversation[begin + i].role;
    const bool fits = i % 2 == 0 ? role == Role::user || role == Role::tool : role == Role::assistant;
    if (!fits)
      throw BadRecord(fmt::format("message {} is of the {}, where {} must come", begin + i + 1, name_of(role),
                                  i % 2 == 0 ? "a question" : "an answer"));
  }
  if (turns % 2 != 0 && last_answer == LastAnswer::required) throw BadRecord("the last message is no answer");
}

/// What would have to be rendered in a way that is not known here.
void refuse_filled(const json& object, const char* name, const std::string& owner) {
  const auto found = object.find(name);
  if (found != object.end() && !found->empty() && *found != "" && *found != "[]")
    throw BadRecord(fmt::format("{} has \"{}\", which are not supported", owner, name));
}

Conversation from_sharegpt(json record, LastAnswer last_answer) {
  const bool openai = !record.contains("conversations");
  const char* list_name = openai ? "messages" : "conversations";
  const auto list = record.find(list_name);
  if (list == record.end()) throw BadRecord("neither \"conversations\" nor \"messages\"");
  if (!list->is_array())
    throw BadRecord(fmt::format("\"{}\" is a JSON {}, not an array", list_name, list->type_name()));
  refuse_filled(record, "tools", "it");
  Conversation conversation;
  for (json& message : *list) {
    if (!message.is_object())
      throw BadRecord(fmt::format("a message is a JSON {}, not an object", message.type_name()));
    for (const char* name : {"tool_calls", "function_call"})
      refuse_filled(message, name, fmt::format("message {}", conversation.size() + 1));
    const bool role_key = message.contains("role");
    const Role role = role_of(text_in(message, role_key ? "role" : "from"));
    conversation.push_back({role, std::move(text_in(message, role_key ? "content" : "value"))});
  }
  const bool own_system = !conversation.empty() && conversation.front().role == Role::system;
  if (std::string system = optional_text_in(record, "system"); !own_system && !system.empty())
    conversation.insert(conversation.begin(), {Role::system, std::move(system)});
  const bool any_system = !conversation.empty() && conversation.front().role == Role::system;
  check_turns(conversation, any_system ? 1 : 0, last_answer);
  if (any_system && conversation.front().content.empty()) conversation.erase(conversation.begin());
  return conversation;
}

}  // namespace

std::string_view name_of(Role role) {
  switch (role) {
    case Role::system: return "system";
    case Role::user: return "user";
    case Role::assistant: return "assistant";
    case Role::tool: return "tool";
  }
  return {};
}

InputFormat input_format_from(std::string_view word) {
  for (const auto& [format, name] : formats)
    if (word == name) return format;
  throw ConfigurationError(fmt::format(
      "`format {}` is unknown (no such format); use auto, text, jsonl, alpaca or sharegpt", word));
}

std::string_view word_of(InputFormat format) {
  return std::find_if(formats.begin(), formats.end(), [&](const auto& f) { return f.first == format; })
      ->second;
}

Conversation parse_conversation(std::string_view record, InputFormat format, LastAnswer last_answer) {
  LLAMA3D_EXPECT(holds_conversations(format), "{} records hold no conversations", word_of(format));
  json value = parse_object(record);
  return format == InputFormat::alpaca ? from_alpaca(std::move(value), last_answer)
                                       : from_sharegpt(std::move(value), last_answer);
}

std::string parse_text_record(std::string_view record, const std::string& field) {
  json value = parse_object(record);
  return std::move(text_in(value, field));
}

InputFormat format_of_record(std::string_view record, const std::string& text_field) {
  json value;
  try {
    value = parse_object(record);
  } catch (const BadRecord&) {
    return InputFormat::automatic;
  }
  if (value.contains("conversations") || value.contains("messages")) return InputFormat::sharegpt;
  if (value.contains("instruction") && value.contains("output")) return InputFormat::alpaca;
  if (value.contains(text_field)) return InputFormat::jsonl;
  return value.contains("instruction") ? InputFormat::alpaca : InputFormat::automatic;
}

}  // namespace llama3d
