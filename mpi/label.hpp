#pragma once

#include <compare>
#include <ostream>
#include <string_view>

namespace llama3d {

/// Name of a communication, for timings, traffic counts and the watchdog. Always one of mpi/labels.hpp, whose
/// names are string literals: they live for ever and end in a zero byte.
struct Label {
  std::string_view name;
  bool operator==(const Label&) const = default;
  auto operator<=>(const Label&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Label& label) { return out << label.name; }
};

}  // namespace llama3d
