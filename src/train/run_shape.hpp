#pragma once
// What the settings mean for the rooms below.

#include "model/config.hpp"
#include "optim/distributed_optimizer.hpp"
#include "optim/learning_rate.hpp"
#include "plan/run_plan.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// The model of settings.model; where that is empty, of the weights in settings.load, of the checkpoint in
/// settings.resume, or else llama3-tiny.
ModelConfig model_of(const TrainSettings& settings);
/// The shape of the run on `world_size` ranks. Throws ConfigurationError.
RunShape run_shape(const TrainSettings& settings, int world_size);
/// With this model instead of settings.model.
RunShape run_shape(const TrainSettings& settings, const ModelConfig& model, int world_size);

OptimizerOptions optimizer_options(const TrainSettings& settings);
LearningRateSchedule learning_rate_schedule(const TrainSettings& settings);

}  // namespace llama3d
