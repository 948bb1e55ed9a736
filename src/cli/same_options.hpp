#pragma once

#include "cli/command_line.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

/// Throws on all ranks unless every rank was given the same options: one that a launcher did not hand on (an
/// environment variable, a file that differs from node to node) would let ranks train different runs
/// together. Collective.
void expect_same_options(const CommandLine& line, ControlPlane& control);

}  // namespace llama3d
