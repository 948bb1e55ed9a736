#pragma once

#include <compare>
#include <ostream>
#include <string_view>

namespace llama3d {

/// Name of a communication, for timings, traffic counts and the watchdog. Always one of mpi/labels.hpp, whose
/// names are string literals: they live for ever and end in a zero byte.
struct Label {
  std::string_view name;
  /// Several alike in each layer of each micro-batch, all by one communicator: timing them all on a GPU would
  /// slow the step down, so that a sample tells of the others.
  bool frequent = false;
  bool operator==(const Label& other) const { return name == other.name; }
  auto operator<=>(const Label& other) const { return name <=> other.name; }
  friend std::ostream& operator<<(std::ostream& out, const Label& label) { return out << label.name; }
};

}  // namespace llama3d
