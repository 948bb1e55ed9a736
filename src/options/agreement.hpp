#pragma once

#include <string>

#include "comm/control_plane.hpp"

namespace llama3d {

/// Throws on all ranks unless every rank was given the same options: one that a launcher did not hand on (an
/// environment variable, a file that differs from node to node) would let ranks train different runs
/// together. `options`: a JSON object of name to value, those of this rank for the command. Paths may differ.
/// Collective.
void expect_same_options(unsigned command, const std::string& options, ControlPlane& control);

}  // namespace llama3d
