#include "base/host_memory.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>

namespace llama3d {
namespace {

std::size_t available_memory() {
  if (const auto text = system_field("/proc/meminfo", "MemAvailable")) {
    return static_cast<std::size_t>(std::strtoull(text->c_str(), nullptr, 10)) * 1024;
  }
  return std::numeric_limits<std::size_t>::max();
}

/// The number in a control group's limit file; none for "max" or no such file.
std::optional<std::size_t> limit_in(const std::string& file) {
  std::ifstream in(file);
  std::size_t limit = 0;
  if (in >> limit) return limit;
  return std::nullopt;
}

/// The lowest memory limit of this process's control group and the groups around it (versions 2 and 1).
std::size_t cgroup_limit() {
  std::size_t lowest = std::numeric_limits<std::size_t>::max();
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version2 = controllers.empty();
    if (!version2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const std::string file = version2 ? "/memory.max" : "/memory.limit_in_bytes";
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      if (const auto limit = limit_in(root + (group == "/" ? "" : group) + file))
        lowest = std::min(lowest, *limit);
      if (group.find('/') == std::string::npos) break;
    }
  }
  return lowest;
}

}  // namespace

std::optional<std::string> system_field(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const auto text = line.find_first_not_of(" \t", colon + 1);
    return text == std::string::npos ? std::string() : line.substr(text);
  }
  return std::nullopt;
}

std::size_t available_host_memory() {
  return std::min(cgroup_limit(), available_memory());
}

}  // namespace llama3d
