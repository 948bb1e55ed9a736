#pragma once
// JSON that others wrote.

#include <nlohmann/json.hpp>
#include <string_view>

namespace llama3d::io {

/// Throws IoError for what is no JSON object, for objects and arrays nested more than 16 deep (what recurses
/// over them must not run out of stack) and for an object with two equal keys, of which JSON libraries would
/// silently take one or the other.
nlohmann::json parse_foreign_json(std::string_view text);

}  // namespace llama3d::io
