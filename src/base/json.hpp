#pragma once
// JSON that may come from a file: parsed within bounds, and read by functions that say what is wrong with
// which value. Nothing else in the program parses JSON.

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

/// What is wrong with a JSON text, or with a value in one: a line of at most a few hundred bytes without
/// control characters, which does not name the file.
struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct JsonLimits {
  /// Objects and arrays in each other. What recurses over values, as printing them does, must not run out of
  /// stack.
  int depth = 64;
  /// Numbers, texts, objects and so on in all. One takes up to about 100 bytes of memory, however short its
  /// text.
  std::size_t values = std::size_t{1} << 22;
  /// Refuse an object with two equal keys; else the last one counts.
  bool distinct_keys = false;
};

/// Throws JsonError for what is no JSON (with the number of the byte), for a number that no double holds, and
/// for text beyond the limits, before memory is taken for what lies beyond them. Json: nlohmann::json, or
/// nlohmann::ordered_json where the order of members counts (of few: looking one up is linear).
template <class Json>
Json parse_json(std::string_view text, const JsonLimits& limits = {});

nlohmann::json parse_json(std::string_view text, const JsonLimits& limits = {});
/// The same for text that must hold an object.
nlohmann::json parse_json_object(std::string_view text, const JsonLimits& limits = {});

/// A value as JSON for a message, of at most about 60 bytes.
template <class Json>
std::string json_excerpt(const Json& value);

// Values by what they must be. `name` is what messages call them. All throw JsonError: "size is 1e+30; it
// must be an integer from 0 to 9223372036854775807".

inline constexpr std::int64_t largest_integer = std::numeric_limits<std::int64_t>::max();

/// The value where it is an integer from `least` to `most`, written as one: no fraction, no exponent, no
/// truth value.
std::optional<std::int64_t> integer_within(const nlohmann::json& value, std::int64_t least,
                                           std::int64_t most);
/// That, or else an error.
std::int64_t json_integer(const nlohmann::json& value, std::string_view name, std::int64_t least = 0,
                          std::int64_t most = largest_integer);
/// An array of such.
std::vector<std::int64_t> json_integers(const nlohmann::json& value, std::string_view name,
                                        std::int64_t least = 0, std::int64_t most = largest_integer);
const std::string& json_text(const nlohmann::json& value, std::string_view name);
const nlohmann::json& json_array(const nlohmann::json& value, std::string_view name);
/// The member of an object that must be there.
const nlohmann::json& json_member(const nlohmann::json& object, const std::string& name);
/// Null where there is no such member, or it is null.
const nlohmann::json* find_json_member(const nlohmann::json& object, const std::string& name);

/// Members of objects; where they may be missing, `otherwise` stands for a missing one.
std::int64_t json_integer_in(const nlohmann::json& object, const std::string& name,
                             std::optional<std::int64_t> otherwise = {});
std::string json_text_in(const nlohmann::json& object, const std::string& name,
                         std::optional<std::string> otherwise = {});

}  // namespace llama3d
