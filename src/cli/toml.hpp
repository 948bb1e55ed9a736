#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace llama3d {

/// The `key = value` lines of a TOML file: strings, integers, floats, booleans, and arrays of these. Throws
/// ConfigurationError, naming `origin` and the line, for what is no TOML, and for sections and dates, which
/// no option takes.
nlohmann::ordered_json parse_toml(const std::string& text, const std::string& origin);

}  // namespace llama3d
