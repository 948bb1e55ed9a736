#pragma once

#include "cli/command_line.hpp"
#include "cli/launch.hpp"
#include "options/settings.hpp"

namespace llama3d {

void add_machine_options(CommandLine& line, MachineOptions& machine);
/// After parse(): refuses layout and shape options of the command line that have no effect beside others. Not
/// those that only a grid of one rank makes idle: scripts give them to one grid after another.
void refuse_idle_shape_options(const CommandLine& line, const TrainSettings& settings);
/// After parse(): defaults that follow from other options, and options that have no effect beside others.
void complete_training_options(CommandLine& line, TrainSettings& settings);

}  // namespace llama3d
