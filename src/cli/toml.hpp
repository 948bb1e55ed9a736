#pragma once
// The part of TOML that a list of options needs.

#include <nlohmann/json.hpp>
#include <string>

namespace llama3d {

/// Reads `key = value` lines in their order: strings in one line, integers, floats, booleans, arrays of
/// these, comments. Throws ConfigurationError, naming `origin` and the line, for anything else: sections and
/// dotted keys, a key given twice, text that is no TOML.
nlohmann::ordered_json parse_toml(const std::string& text, const std::string& origin);

}  // namespace llama3d
