#pragma once
// Which layers each part of the pipeline holds.

#include <span>
#include <vector>

#include "model/config.hpp"

namespace llama3d {

struct LayerRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t count() const { return end - begin; }
  bool operator==(const LayerRange&) const = default;
};

/// Contiguous runs of layers for `parts` global chunks, at least one layer each, such that the costliest part
/// is as cheap as possible; among those, earlier parts are filled first. A layer costs its matrix parameters;
/// the output head counts in the last part, and the embedding, a lookup and a scatter, as a tenth of it in
/// the first. Throws ConfigurationError when there are more parts than layers.
std::vector<LayerRange> partition_layers(const ModelConfig& config, std::int64_t parts);

/// The partition with these layer counts. Throws ConfigurationError unless there is one for each of `parts`,
/// all positive, adding up to the model's layers.
std::vector<LayerRange> partition_layers(const ModelConfig& config, std::int64_t parts,
                                         std::span<const int> counts);

}  // namespace llama3d
