#include "model/layer_partition.hpp"

#include <numeric>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// Costs in matrix parameters.
struct Costs {
  double layer, head, embedding;

  explicit Costs(const ModelConfig& config) {
    head = static_cast<double>(config.vocabulary * config.hidden);
    layer = (static_cast<double>(config.matrix_parameters()) - head) / static_cast<double>(config.layers);
    embedding = 0.1 * head;
  }
};

/// Fills parts from the front with as many layers as `limit` allows, leaving one for each later part.
/// Empty when the last part would exceed the limit.
std::vector<LayerRange> fill(const ModelConfig& config, const Costs& costs, std::int64_t parts,
                             double limit) {
  std::vector<LayerRange> ranges;
  std::int64_t begin = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    const bool last = part == parts - 1;
    const double fixed = (part == 0 ? costs.embedding : 0) + (last ? costs.head : 0);
    const std::int64_t most = config.layers - begin - (parts - 1 - part);
    std::int64_t count = last ? most : 1;
    while (!last && count < most && fixed + static_cast<double>(count + 1) * costs.layer <= limit) ++count;
    if (fixed + static_cast<double>(count) * costs.layer > limit) return {};
    ranges.push_back({begin, begin + count});
    begin += count;
  }
  return ranges;
}

}  // namespace

std::vector<LayerRange> partition_layers(const ModelConfig& config, std::int64_t parts) {
  if (parts > config.layers)
    throw ConfigurationError(fmt::format(
        "`pp_size`: {} pipeline parts for the {} layers of {} (each needs a layer); use at most {}", parts,
        config.layers, config.name, config.layers));
  // The best limit is the cost of some run of layers with or without the two ends: try them in ascending
  // order.
  const Costs costs(config);
  std::vector<LayerRange> best;
  double best_limit = 0;
  for (std::int64_t count = 1; count <= config.layers; ++count)
    for (const double ends : {0.0, costs.embedding, costs.head, costs.embedding + costs.head}) {
      const double limit = static_cast<double>(count) * costs.layer + ends;
      if (!best.empty() && limit >= best_limit) continue;
      if (auto ranges = fill(config, costs, parts, limit * (1 + 1e-12)); !ranges.empty()) {
        best = std::move(ranges);
        best_limit = limit;
      }
    }
  return best;
}

std::vector<LayerRange> partition_layers(const ModelConfig& config, std::int64_t parts,
                                         std::span<const int> counts) {
  const auto total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  bool positive = true;
  std::vector<LayerRange> ranges;
  for (const int count : counts) {
    positive = positive && count > 0;
    const std::int64_t begin = ranges.empty() ? 0 : ranges.back().end;
    ranges.push_back({begin, begin + count});
  }
  if (std::ssize(counts) != parts || total != config.layers || !positive)
    throw ConfigurationError(fmt::format(
        "`pipeline_layers`: {} counts adding up to {} (the pipeline has {} parts and {} has {} layers); "
        "give one positive count a part",
        counts.size(), total, parts, config.name, config.layers));
  return ranges;
}

}  // namespace llama3d
