#pragma once

#include "cli/command_line.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// What `train`, `eval` and `plan` take besides the settings themselves.
struct MachineOptions {
  std::string device = "auto";
  int threads = 0;
};

void add_machine_options(CommandLine& line, MachineOptions& machine);
/// Model, grid and batch: what decides the shape and memory of a run.
void add_shape_options(CommandLine& line, TrainSettings& settings);
/// All that only training needs.
void add_training_options(CommandLine& line, TrainSettings& settings);
/// Bounds that no single option's type can express. Throws ConfigurationError.
void check_settings(const TrainSettings& settings);

}  // namespace llama3d
