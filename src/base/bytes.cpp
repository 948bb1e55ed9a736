#include "base/bytes.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

namespace llama3d {

std::string format_bytes(std::size_t bytes) {
  constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", value, value < 100 ? 2 : 0, units[unit]);
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  using Unit = std::pair<std::string_view, double>;
  constexpr std::array units = {
      Unit{"", 1},      Unit{"B", 1},        Unit{"KB", 1e3},     Unit{"MB", 1e6},     Unit{"GB", 1e9},
      Unit{"TB", 1e12}, Unit{"KiB", 0x1p10}, Unit{"MiB", 0x1p20}, Unit{"GiB", 0x1p30}, Unit{"TiB", 0x1p40}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  while (text.starts_with(' ')) text.remove_prefix(1);
  for (const auto& [name, factor] : units)
    if (name == text && number * factor >= 1 && number * factor <= 0x1p62)
      return static_cast<std::int64_t>(number * factor);
  return std::nullopt;
}

}  // namespace llama3d
