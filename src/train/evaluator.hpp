#pragma once

#include "train/engine.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// Loss of the weights in settings.load, a checkpoint or a Hugging Face folder, over settings.data: the first
/// settings.valid_samples sequences, 0 for all. An empty settings.model and a settings.seq_length of 0 stand
/// for what the weights were made with; master weights, dtypes of gradients and moments, and recomputation
/// are chosen for the least memory, since a loss does not depend on them. Collective; CollectiveErrors as in
/// train().
Evaluation evaluate_weights(TrainSettings settings, Runtime& runtime);

}  // namespace llama3d
