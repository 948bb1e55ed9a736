#pragma once
// The local sizes of one rank's share of a training step: what memory is laid out by.

#include <string_view>

#include "compute/kernels.hpp"
#include "compute/precision.hpp"
#include "model/config.hpp"

namespace llama3d {

/// What the backward pass computes again instead of keeping it.
enum class Recompute {
  none,   ///< nothing
  cheap,  ///< norm outputs, their gathering over the tp group, and SwiGLU
  full,   ///< everything inside a layer; only the layers' inputs are kept
};

/// The word of `--recompute`. parse throws ConfigurationError listing the valid words.
std::string_view name_of(Recompute recompute);
Recompute parse_recompute(std::string_view word);

struct StageShape {
  const PrecisionRecipe* precision = &precision_of(DType::fp32);
  DType gradient = DType::fp32;
  Recompute recompute = Recompute::none;
  /// Weight gradients are computed apart from input gradients, so what they need is kept until then.
  bool split_backward = false;
  int tp = 1;
  std::int64_t rows = 0;        ///< T: token rows of a micro-batch, padded to a multiple of tp
  std::int64_t shard_rows = 0;  ///< T/tp
  std::int64_t hidden = 0;
  std::int64_t feed_forward = 0;             ///< local
  std::int64_t vocabulary = 0;               ///< local rows, padding included
  AttentionShape attention;                  ///< local heads
  bool qkv_bias = false, head_norm = false;  ///< of the architecture
  std::int64_t positions = 0;                ///< rows of the rotary table
  std::size_t logits_bytes = 0;              ///< about how large a chunk of logits may be

  DType compute() const { return precision->compute; }

  /// `micro_batch` sequences of `sequence` tokens.
  static StageShape make(const ModelConfig& config, int tp, std::int64_t micro_batch, std::int64_t sequence);
  WorkspaceRequest workspace() const;
};

}  // namespace llama3d
