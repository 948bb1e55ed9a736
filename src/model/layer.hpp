#pragma once
// One transformer layer: norm, attention, norm, SwiGLU, with the residual stream around them.

#include "compute/arena.hpp"
#include "model/parameter_table.hpp"
#include "model/stage_shape.hpp"
#include "parallel/linear.hpp"

namespace llama3d {

/// What a layer's forward leaves for its backward. "Shard" tensors hold T/tp rows, the others all T.
struct LayerActivations {
  Tensor input;            ///< shard (T/tp, C), the residual stream
  Tensor input_rstd;       ///< (T/tp) fp32
  Tensor input_normed;     ///< shard (T/tp, C)
  Tensor input_gathered;   ///< (T, C), its rows of all ranks; empty for tp 1
  Tensor qkv;              ///< (T, fused columns), rotated
  Tensor attention;        ///< (T, Hq D)
  Tensor lse;              ///< (Hq, T) fp32
  Tensor middle;           ///< shard (T/tp, C), the residual stream after attention
  Tensor middle_rstd;      ///< (T/tp) fp32
  Tensor middle_normed;    ///< shard (T/tp, C)
  Tensor middle_gathered;  ///< (T, C), its rows of all ranks; empty for tp 1
  Tensor gate_up;          ///< (T, 2F)
  Tensor gated;            ///< (T, F)

  /// The tensors that live from forward to backward, `input` apart, which the caller places.
  static LayerActivations take_kept(Arena& arena, const StageShape& shape);
  /// The others, once for all layers.
  static LayerActivations take_shared(Arena& arena, const StageShape& shape);
  /// These, with what is missing from `other`.
  LayerActivations joined_with(const LayerActivations& other) const;
};

/// Gradients of the layer's products' outputs: what its weight gradients are made from, beside the
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

/// What every layer of a run reads: tables and constants.
struct LayerConstants {
  AttentionShape attention;
  float norm_epsilon = 1e-5f;
  Tensor rope;  ///< (P, D) fp32
};

/// Where inference keeps a layer's keys and values.
struct LayerCache {
  Tensor entries;      ///< (slots, capacity, 2 Hkv D), see Kernels::cache_append
  CacheRows rows;      ///< of the call
  bool whole = false;  ///< the call's documents are whole: they attend to their own rows, not to the cache
};

class TransformerLayer {
 public:
  /// Views into the parameter and gradient arenas, the latter empty for inference; `constants` and `tp` must
  /// outlive the layer.
  TransformerLayer(const TensorParallel& tp, const LayerConstants& constants, const StageShape& shape,
                   const ParameterTable& table, std::int64_t layer, const Tensor& parameters,
                   const Tensor& gradients);

  /// Where a layer's input comes from: the residual stream and the last product's output, not yet added to
  /// it. With an empty residual the layer's `input` is already in place.
  struct Incoming {
    Tensor residual, delta;
  };
  /// Fills `a` and writes the down product's output, to be added to a.middle, to `delta` (T/tp, C).
  /// incoming.delta may be `delta`. With a cache the rows' keys and values go there, and attention reads them
  /// from there.
  void forward(const LayerActivations& a, const Incoming& incoming, const DocumentRows& documents,
               const Tensor& delta, const LayerCache* cache = nullptr) const;
  enum class Rematerialized {
    for_backward,  ///< all but SwiGLU's output, which backward itself computes again
    everything,
  };
  /// Computes again what Recompute did not keep; bit-equal to the forward. Runs `others` where it would
  /// overwrite what they read.
  void rematerialize(const LayerActivations& a, const DocumentRows& documents, const Tensor& delta,
                     Rematerialized what, DeferredWork& others) const;
  /// inout d (T/tp, C): gradient of the output in, of the input out. Accumulates the norms' gradients, and
  /// those of the products' weights too unless the backward is split; then g keeps what backward_weight
  /// needs. Runs `others`, and leaves there its own last product, which reads a and g.
  void backward(const LayerActivations& a, const LayerGradients& g, const LayerScratch& scratch,
                const DocumentRows& documents, const Tensor& d, DeferredWork& others) const;
  /// The weight gradients of a split backward.
  void backward_weight(const LayerActivations& a, const LayerGradients& g) const;
  /// The products that the tp group's blocks (TensorParallelOverlap) go through, one after another on
  /// whatever the tensors hold: to be timed.
  void run_products_in_blocks(const LayerActivations& a, const LayerGradients& g, const LayerScratch& scratch,
                              const Tensor& delta, DeferredWork& others) const;

 private:
  void attention_forward(const LayerActivations& a, const DocumentRows& documents, const Tensor& delta,
                         const LayerCache* cache = nullptr) const;
  void attend(const LayerActivations& a, const DocumentRows& documents, const LayerCache* cache) const;
  void mlp_forward(const LayerActivations& a) const;
  void mlp_backward(const LayerActivations& a, const LayerGradients& g, const LayerScratch& scratch,
                    const Tensor& d, DeferredWork& others) const;
  void attention_backward(const LayerActivations& a, const LayerGradients& g, const LayerScratch& scratch,
                          const DocumentRows& documents, const Tensor& d, DeferredWork& others) const;
  /// All rows of a product's input, for its weight gradient: there, or on their way once more.
  RowExchange all_rows(const ColumnParallelLinear& linear, const Tensor& x, const Tensor& gathered) const;
  RowExchange all_rows_unless_split(const ColumnParallelLinear& linear, const Tensor& x,
                                    const Tensor& gathered) const;
  /// dx (T/tp, C) and, put off, the weight gradient from all rows of x.
  void column_backward(const ColumnParallelLinear& linear, const Tensor& dy, RowExchange& x, const Tensor& dx,
                       DeferredWork& others) const;

  const TensorParallel* tp_;
  const LayerConstants* constants_;
  Recompute recompute_;
  bool split_backward_;
  WeightTensors input_norm_, middle_norm_;
  ColumnParallelLinear qkv_;
  RowParallelLinear output_;
  ColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace llama3d
