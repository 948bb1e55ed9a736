#pragma once
// What one pipeline rank computes in, parameters and gradients apart.

#include <vector>

#include "model/layer_activations.hpp"
#include "model/layer_partition.hpp"
#include "parallel/loss_head.hpp"

namespace llama3d {

/// What decides the memory of a stage.
struct StageLayout {
  StageShape shape;
  std::vector<LayerRange> chunks;  ///< this rank's, in order of use
  bool first_stage = true, last_stage = true;
  int slots = 1;  ///< micro-batch x chunk pairs alive at once

  std::int64_t most_layers() const;
};

/// The activations of one micro-batch in one chunk, from its forward to the end of its backward.
struct ActivationSlot {
  std::vector<LayerActivations> layers;
  std::vector<LayerGradients> gradients;  ///< of each layer, when the backward is split
  static constexpr std::int64_t row_kinds = 5;
  Tensor rows;  ///< (5, T) int32: ids, targets, start, end, position

  Tensor ids() const { return rows.slice(0, 1).flat(); }
  Tensor targets() const { return rows.slice(1, 2).flat(); }
  DocumentRows documents() const {
    return {rows.slice(2, 3).flat(), rows.slice(3, 4).flat(), rows.slice(4, 5).flat()};
  }
};

/// All of a stage's memory. The same code measures and allocates it.
struct StageMemory {
  // activations
  std::vector<ActivationSlot> slots;
  // workspace
  Tensor all_rows;           ///< (T, C), scratch of TensorParallel; empty for tp 1
  Tensor delta;              ///< shard (T/tp, C)
  Tensor rope;               ///< (P, D) fp32
  LayerActivations shared;   ///< by all layers, one after another
  LayerGradients gradients;  ///< when the backward is joint
  LayerScratch scratch;
  Tensor final_sum, final_normed;  ///< shard (T/tp, C), on the last stage
  Tensor final_rstd;               ///< (T/tp) fp32
  LossHeadBuffers head;

  static StageMemory take(Arena& activations, Arena& workspace, const StageLayout& layout);
};

}  // namespace llama3d
