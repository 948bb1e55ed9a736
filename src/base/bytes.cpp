#include "base/bytes.hpp"

#include <fmt/format.h>

#include <array>

namespace llama3d {

std::string format_bytes(std::size_t bytes) {
  constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", value, value < 100 ? 2 : 0, units[unit]);
}

}  // namespace llama3d
