#include "model/presets.hpp"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>

namespace llama3d {

std::optional<Preset> find_preset(std::string_view name) {
  for (const Preset& preset : embedded_presets())
    if (preset.name == name) return preset;
  return std::nullopt;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<std::size_t> row(b.size() + 1);  // distances from the first i letters of a to every prefix of b
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::vector<std::string> nearest_presets(std::string_view name, std::size_t count) {
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (const Preset& preset : embedded_presets()) {
    const std::size_t distance = edit_distance(name, preset.name);
    if (distance <= std::max<std::size_t>(2, preset.name.size() / 2))
      ranked.emplace_back(distance, preset.name);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (const auto& [distance, preset] : ranked)
    if (names.size() < count) names.emplace_back(preset);
  return names;
}

}  // namespace llama3d
