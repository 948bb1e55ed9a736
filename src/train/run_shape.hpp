#pragma once
// What the settings mean for the rooms below.

#include <filesystem>
#include <optional>

#include "comm/control_plane.hpp"
#include "model/config.hpp"
#include "optim/distributed_optimizer.hpp"
#include "optim/learning_rate.hpp"
#include "plan/run_plan.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// Where a run's checkpoints are.
std::filesystem::path checkpoint_directory(const TrainSettings& settings);
/// Whether the run goes on with one of them. From a checkpoint elsewhere another run begins in the output
/// folder.
bool continues_in_place(const TrainSettings& settings);
/// The newest of them that can be opened, where the run goes on by itself (--resume auto) and there is one.
std::optional<std::filesystem::path> checkpoint_to_resume(const TrainSettings& settings);

/// The model of settings.model; where that is empty, of the checkpoint that the run goes on from, of the
/// weights in settings.load, or else llama3-tiny.
ModelConfig model_of(const TrainSettings& settings);
/// The first rank's, on every rank: a file system may show others an older folder. Collective;
/// CollectiveErrors.
ModelConfig agreed_model(const TrainSettings& settings, ControlPlane& control);
/// The shape of the run on `world_size` ranks. Throws ConfigurationError.
RunShape run_shape(const TrainSettings& settings, int world_size);
/// With this model instead of settings.model.
RunShape run_shape(const TrainSettings& settings, const ModelConfig& model, int world_size);

OptimizerOptions optimizer_options(const TrainSettings& settings);
LearningRateSchedule learning_rate_schedule(const TrainSettings& settings);

}  // namespace llama3d
