#include "base/json.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.hpp"

namespace llama3d {
namespace {

constexpr std::size_t longest_excerpt = 60;

/// The library's words, without its own numbering and the place that is told in bytes.
std::string reason_of(const std::exception& error) {
  std::string_view reason = error.what();
  const auto drop_to = [&](std::string_view mark) {
    if (const auto found = reason.find(mark); found != std::string_view::npos)
      reason.remove_prefix(found + mark.size());
  };
  drop_to("] ");
  if (reason.starts_with("parse error at")) drop_to(": ");
  return printable(reason, 200);
}

/// What the parser calls with every token; builds the value as far as the limits go.
template <class Json>
class Builder {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}
  Json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(typename Json::number_integer_t value) { return add(value); }
  bool number_unsigned(typename Json::number_unsigned_t value) { return add(value); }
  bool number_float(typename Json::number_float_t value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(typename Json::binary_t& value) { return add(std::move(value)); }
  bool start_object(std::size_t) { return open(Json::value_t::object); }
  bool start_array(std::size_t) { return open(Json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    Json& object = *open_.back();
    if (limits_.distinct_keys && object.contains(name)) throw JsonError(printable(name) + " is listed twice");
    member_ = &object[std::move(name)];
    return true;
  }
  bool parse_error(std::size_t byte, const std::string&, const std::exception& error) {
    throw JsonError(fmt::format("no valid JSON at byte {}: {}", byte, reason_of(error)));
  }

 private:
  template <class Value>
  bool add(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(typename Json::value_t type) {
    if (std::ssize(open_) >= limits_.depth)
      throw JsonError(fmt::format("its JSON is nested more than {} deep", limits_.depth));
    open_.push_back(&place(type));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  template <class Value>
  Json& place(Value&& value) {
    if (++values_ > limits_.values)
      throw JsonError(fmt::format("its JSON has more than {} values", limits_.values));
    if (open_.empty()) return root_ = Json(std::forward<Value>(value));
    if (open_.back()->is_array()) return open_.back()->emplace_back(std::forward<Value>(value));
    return *member_ = Json(std::forward<Value>(value));
  }

  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> open_;  ///< the value under way, outermost first
  Json* member_ = nullptr;   ///< of the innermost object, whose value comes next
  std::size_t values_ = 0;
};

[[noreturn]] void refuse(const nlohmann::json& value, std::string_view name, const std::string& right) {
  throw JsonError(fmt::format("{} is {}; it must be {}", printable(name), json_excerpt(value), right));
}

/// Stops soon after `longest_excerpt` bytes.
template <class Json>
void append_excerpt(const Json& value, std::string& out) {
  if (out.size() > longest_excerpt) return;
  if (value.is_string()) {
    const auto& text = value.template get_ref<const std::string&>();
    out += '"' + printable(text, longest_excerpt) + '"';
  } else if (value.is_structured()) {
    out += value.is_array() ? '[' : '{';
    bool first = true;
    for (const auto& item : value.items()) {
      if (out.size() > longest_excerpt) return;
      if (!std::exchange(first, false)) out += ',';
      if (value.is_object()) out += '"' + printable(item.key(), longest_excerpt) + "\":";
      append_excerpt(item.value(), out);
    }
    out += value.is_array() ? ']' : '}';
  } else {
    out += value.dump();
  }
}

}  // namespace

template <class Json>
Json parse_json(std::string_view text, const JsonLimits& limits) {
  Builder<Json> builder(limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

template nlohmann::json parse_json<nlohmann::json>(std::string_view, const JsonLimits&);
template nlohmann::ordered_json parse_json<nlohmann::ordered_json>(std::string_view, const JsonLimits&);

nlohmann::json parse_json(std::string_view text, const JsonLimits& limits) {
  return parse_json<nlohmann::json>(text, limits);
}

nlohmann::json parse_json_object(std::string_view text, const JsonLimits& limits) {
  nlohmann::json value = parse_json(text, limits);
  if (!value.is_object()) throw JsonError(fmt::format("a JSON {}, not an object", value.type_name()));
  return value;
}

template <class Json>
std::string json_excerpt(const Json& value) {
  std::string text;
  append_excerpt(value, text);
  return printable(text, longest_excerpt);
}

template std::string json_excerpt(const nlohmann::json&);
template std::string json_excerpt(const nlohmann::ordered_json&);

std::optional<std::int64_t> integer_within(const nlohmann::json& value, std::int64_t least,
                                           std::int64_t most) {
  if (!value.is_number_integer()) return std::nullopt;
  // Without a sign the library holds it unsigned, above INT64_MAX too.
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
    return std::nullopt;
  const auto integer = value.get<std::int64_t>();
  return integer < least || integer > most ? std::nullopt : std::optional(integer);
}

std::int64_t json_integer(const nlohmann::json& value, std::string_view name, std::int64_t least,
                          std::int64_t most) {
  const auto integer = integer_within(value, least, most);
  if (!integer) refuse(value, name, fmt::format("an integer from {} to {}", least, most));
  return *integer;
}

std::vector<std::int64_t> json_integers(const nlohmann::json& value, std::string_view name,
                                        std::int64_t least, std::int64_t most) {
  std::vector<std::int64_t> integers;
  integers.reserve(json_array(value, name).size());
  for (const auto& element : value) {
    const auto integer = integer_within(element, least, most);
    integers.push_back(integer ? *integer
                               : json_integer(element, fmt::format("an element of {}", name), least, most));
  }
  return integers;
}

const std::string& json_text(const nlohmann::json& value, std::string_view name) {
  if (!value.is_string()) refuse(value, name, "a string");
  return value.get_ref<const std::string&>();
}

const nlohmann::json& json_array(const nlohmann::json& value, std::string_view name) {
  if (!value.is_array()) refuse(value, name, "an array");
  return value;
}

const nlohmann::json& json_member(const nlohmann::json& object, const std::string& name) {
  if (!object.is_object()) refuse(object, "what should have " + name, "an object");
  const auto found = object.find(name);
  if (found == object.end()) throw JsonError(name + " is missing");
  return *found;
}

const nlohmann::json* find_json_member(const nlohmann::json& object, const std::string& name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::int64_t json_integer_in(const nlohmann::json& object, const std::string& name,
                             std::optional<std::int64_t> otherwise) {
  if (otherwise && !find_json_member(object, name)) return *otherwise;
  return json_integer(json_member(object, name), name);
}

std::string json_text_in(const nlohmann::json& object, const std::string& name,
                         std::optional<std::string> otherwise) {
  if (otherwise && !find_json_member(object, name)) return *otherwise;
  return json_text(json_member(object, name), name);
}

}  // namespace llama3d
