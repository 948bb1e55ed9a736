#pragma once

#include "train/engine.hpp"
#include "train/settings.hpp"

namespace llama3d {

/// Loss of the weights in settings.load over settings.data: the first settings.valid_samples sequences, 0 for
/// all. With an empty settings.model the checkpoint's own. Collective; CollectiveErrors as in train().
Evaluation evaluate_checkpoint(TrainSettings settings, Runtime& runtime);

}  // namespace llama3d
