#include "model/stage_shape.hpp"

#include <algorithm>

#include "model/parameter_table.hpp"

namespace llama3d {

std::string_view name_of(Recompute recompute) {
  switch (recompute) {
    case Recompute::none: return "none";
    case Recompute::cheap: return "cheap";
    case Recompute::full: return "full";
  }
  return "?";
}

Recompute parse_recompute(std::string_view word) {
  for (const auto recompute : {Recompute::none, Recompute::cheap, Recompute::full})
    if (word == name_of(recompute)) return recompute;
  throw ConfigurationError(fmt::format("`recompute {}`: unknown; use none, cheap or full", word));
}

StageShape StageShape::make(const ModelConfig& config, int tp, std::int64_t micro_batch,
                            std::int64_t sequence) {
  StageShape shape;
  shape.tp = tp;
  shape.shard_rows = (micro_batch * sequence + tp - 1) / tp;
  shape.rows = shape.shard_rows * tp;
  shape.hidden = config.hidden;
  shape.feed_forward = config.feed_forward / tp;
  shape.vocabulary = local_vocabulary(config, tp);
  shape.attention = {config.query_heads / tp, config.key_value_heads / tp, config.head_dim};
  shape.qkv_bias = config.architecture->qkv_bias;
  shape.head_norm = config.architecture->head_norm;
  shape.positions = sequence;
  return shape;
}

WorkspaceRequest StageShape::workspace() const {
  WorkspaceRequest request;
  request.compute = compute();
  request.gradient = gradient;
  request.tokens = rows;
  request.hidden = hidden;
  request.largest_features = std::max({hidden, 2 * feed_forward, attention.fused_columns()});
  request.largest_weight = hidden * std::max({2 * feed_forward, vocabulary, attention.fused_columns(),
                                              attention.output_columns()});
  request.vocabulary = vocabulary;
  request.attention = attention;
  request.qkv_bias = qkv_bias;
  request.head_norm = head_norm;
  return request;
}

}  // namespace llama3d
