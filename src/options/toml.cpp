#include "options/toml.hpp"

#include <toml++/toml.h>

#include <cmath>

#include "base/error.hpp"

namespace llama3d {
namespace {

using nlohmann::ordered_json;

[[noreturn]] void refuse(const std::string& origin, const toml::source_region& where,
                         std::string_view problem) {
  throw ConfigurationError(fmt::format("{}: line {}: {}", origin, where.begin.line, problem));
}

ordered_json convert(const toml::node& node, const std::string& origin) {
  if (const auto* value = node.as_string()) {
    if (value->get().find('\0') != std::string::npos)
      refuse(origin, node.source(), "a text with a zero byte");
    return value->get();
  }
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) {
    if (!std::isfinite(value->get())) refuse(origin, node.source(), "a number must be finite");
    return value->get();
  }
  if (const auto* value = node.as_boolean()) return value->get();
  if (const auto* values = node.as_array()) {
    ordered_json array = ordered_json::array();
    for (const auto& value : *values) array.push_back(convert(value, origin));
    return array;
  }
  refuse(origin, node.source(),
         node.is_table() ? "sections are not used here; write the options at the top level, option = value"
                         : "dates are not used here; give a text, a number, true or false");
}

}  // namespace

ordered_json parse_toml(const std::string& text, const std::string& origin) {
  if (text.size() > longest_toml)
    throw ConfigurationError(
        fmt::format("{}: too long; a file of options has at most {} bytes", origin, longest_toml));
  try {
    const toml::table table = toml::parse(text, origin);
    ordered_json options = ordered_json::object();
    for (const auto& [key, node] : table) options[std::string(key.str())] = convert(node, origin);
    return options;
  } catch (const toml::parse_error& e) {
    refuse(origin, e.source(), fmt::format("{}; write lines of the form option = value", e.description()));
  }
}

}  // namespace llama3d
