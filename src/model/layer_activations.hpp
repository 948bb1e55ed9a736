#pragma once
// What a transformer layer computes in. One table (layer_activations.cpp) says of every activation its type,
// its shape and whether it is kept from the forward to the backward pass.

#include "compute/arena.hpp"
#include "model/stage_shape.hpp"

namespace llama3d {

/// What a layer's forward leaves for its backward. "Shard" tensors hold T/tp rows, the others all T.
struct LayerActivations {
  Tensor input;           ///< shard (T/tp, C), the residual stream; placed by the caller
  Tensor input_rstd;      ///< (T/tp) fp32
  Tensor input_normed;    ///< shard (T/tp, C)
  Tensor input_gathered;  ///< (T, C), its rows of all ranks; empty for tp 1
  Tensor qkv;             ///< (T, fused columns), normalized in models that do, rotated
  Tensor heads;        ///< (T, (Hq + Hkv) D), query and key heads before their norm; empty in models without
  Tensor heads_rstd;   ///< (T, Hq + Hkv) fp32; likewise
  Tensor attention;    ///< (T, Hq D)
  Tensor lse;          ///< (Hq, T) fp32
  Tensor middle;       ///< shard (T/tp, C), the residual stream after attention
  Tensor middle_rstd;  ///< (T/tp) fp32
  Tensor middle_normed;    ///< shard (T/tp, C)
  Tensor middle_gathered;  ///< (T, C), its rows of all ranks; empty for tp 1
  Tensor gate_up;          ///< (T, 2F)
  Tensor gated;            ///< (T, F)

  /// The tensors that live from forward to backward.
  static LayerActivations take_kept(Arena& arena, const StageShape& shape);
  /// The others, once for all layers.
  static LayerActivations take_shared(Arena& arena, const StageShape& shape);
  /// These, with what is missing from `other`.
  LayerActivations joined_with(const LayerActivations& other) const;
};

/// Whether the activation lives from forward to backward. If not, the backward pass computes it again, or
/// does without.
bool is_kept(Tensor LayerActivations::*activation, const StageShape& shape);

/// Gradients of the outputs of the layer's linear operations: weight gradients are made from them and the
/// activations.
struct LayerGradients {
  Tensor qkv;               ///< (T, fused columns)
  Tensor attention_output;  ///< (T, C)
  Tensor gate_up;           ///< (T, 2F)
  Tensor down_output;       ///< (T, C)

  /// One for every layer of a slot when the backward is split, one for all layers otherwise.
  static LayerGradients take(Arena& arena, const StageShape& shape);
};

/// Buffers that live within one layer's backward.
struct LayerScratch {
  Tensor gated;      ///< (T, F)
  Tensor attention;  ///< (T, Hq D)
  Tensor normed;     ///< shard (T/tp, C)

  static LayerScratch take(Arena& arena, const StageShape& shape);
};

}  // namespace llama3d
