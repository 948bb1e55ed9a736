#pragma once
// A run in words and attributes: for people, for metrics.h5 and for checkpoints.

#include <string>

#include "checkpoint/checkpoint_attributes.hpp"
#include "options/settings.hpp"
#include "train/batches.hpp"
#include "train/engine.hpp"
#include "train/metrics_recorder.hpp"

namespace llama3d {

/// Model, grid, batch and machine on a few lines.
std::string describe_run(const TrainSettings& settings, const RunShape& shape, const Device& device);
/// The attributes of /run. Collective.
void record_run_attributes(MetricsRecorder& metrics, const TrainSettings& settings, const RunShape& shape,
                           TensorParallelOverlap overlap, Runtime& runtime);
/// The record of its checkpoints, but for the position and the weights' origin.
CheckpointAttributes checkpoint_attributes(const TrainSettings& settings, const RunShape& shape,
                                           const TrainingBatches& batches);
/// "TP 2 x PP 2 x DP 2, 1f1b"
std::string method(const RunShape& shape);

}  // namespace llama3d
