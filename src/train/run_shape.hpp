#pragma once
// The settings as the modules below take them.

#include <filesystem>

#include "model/config.hpp"
#include "optim/distributed_optimizer.hpp"
#include "optim/learning_rate.hpp"
#include "options/settings.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// The folder of a run's checkpoints.
std::filesystem::path checkpoint_directory(const TrainSettings& settings);
/// The shape of a run of this model on `world_size` ranks. Throws ConfigurationError.
RunShape run_shape(const TrainSettings& settings, const ModelConfig& model, int world_size);

OptimizerOptions optimizer_options(const TrainSettings& settings);
LearningRateSchedule learning_rate_schedule(const TrainSettings& settings);

}  // namespace llama3d
