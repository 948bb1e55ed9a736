#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace llama3d {

/// Bytes of a file of options: tables in each other, which a.b.c... makes of two bytes each, are destroyed by
/// recursion.
inline constexpr std::size_t longest_toml = 32768;

/// The `key = value` lines of a TOML file: strings, integers, floats, booleans, and arrays of these. Throws
/// ConfigurationError, naming `origin` and the line, for what is no TOML or longer, and for sections and
/// dates, which no option takes.
nlohmann::ordered_json parse_toml(const std::string& text, const std::string& origin);

}  // namespace llama3d
