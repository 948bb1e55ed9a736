#pragma once
// Weights in a Hugging Face folder: config.json and safetensors.

#include <filesystem>
#include <memory>

#include "checkpoint/weight_source.hpp"

namespace llama3d {

/// Throws DataError for a folder that can't be used, and the errors of load_model_config().
std::unique_ptr<WeightSource> open_hugging_face(const std::filesystem::path& folder);

}  // namespace llama3d
