#pragma once

#include "options/settings.hpp"
#include "train/batches.hpp"
#include "train/engine.hpp"

namespace llama3d {

/// Loss of the weights in settings.load, a checkpoint or a Hugging Face folder, over settings.data: the first
/// settings.valid_samples sequences, 0 for all. An empty settings.model and a settings.seq_length of 0 stand
/// for what the weights were made with. DataError where no sample has a target. Collective; CollectiveErrors
/// as in train().
Evaluation evaluate_weights(TrainSettings settings, Runtime& runtime);

/// Loss over the validation samples, a bounded number of them in memory at once. Collective;
/// CollectiveErrors.
Evaluation evaluate_validation(Engine& engine, const TrainingBatches& batches, ControlPlane& control);

}  // namespace llama3d
