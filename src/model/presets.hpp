#pragma once
// The models that are known by name: jobs/presets/*.json, embedded at build time.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

struct Preset {
  std::string_view name;
  std::string_view json;  ///< text of its config.json
};

/// In natural order of their names. Defined by the source that the build makes.
std::span<const Preset> embedded_presets();

/// The preset of exactly this name, or nothing.
std::optional<Preset> find_preset(std::string_view name);

/// Insertions, deletions and substitutions that turn a into b (Levenshtein), letters of either case alike.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The names closest to a misspelt one, best first, at most `count`; none when nothing comes near.
std::vector<std::string> nearest_presets(std::string_view name, std::size_t count);

}  // namespace llama3d
