#pragma once

#include "cli/command_line.hpp"
#include "cli/launch.hpp"
#include "train/settings.hpp"

namespace llama3d {

void add_machine_options(CommandLine& line, MachineOptions& machine);
/// What holds the ranks of a job together.
void add_job_options(CommandLine& line, double& comm_timeout);
void add_precision_option(CommandLine& line, const PrecisionRecipe*& precision);
/// Model, grid and micro-batch: how the weights and a forward pass are laid out.
void add_layout_options(CommandLine& line, TrainSettings& settings);
/// These, and the batch and state of a training step: what decides the shape and memory of a run.
void add_shape_options(CommandLine& line, TrainSettings& settings);
/// How a token file's documents become samples.
void add_sample_options(CommandLine& line, TrainSettings& settings);
/// All that only training needs.
void add_training_options(CommandLine& line, TrainSettings& settings);
/// After parse(): refuses layout and shape options of the command line that have no effect beside others. Not
/// those that only a grid of one rank makes idle: scripts give them to one grid after another.
void refuse_idle_shape_options(const CommandLine& line, const TrainSettings& settings);
/// After parse(): defaults that follow from other options, and options that have no effect beside others.
void complete_training_options(CommandLine& line, TrainSettings& settings);

}  // namespace llama3d
