#pragma once
// One transformer layer: norm, attention, norm, SwiGLU, with the residual stream around them.

#include "model/layer_activations.hpp"
#include "model/parameter_table.hpp"
#include "parallel/linear.hpp"

namespace llama3d {

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

/// Parameters of a group and, in a backward pass, their gradients.
struct GroupTensors {
  Tensor parameters, gradients;
};

/// A layer's weights and, in a backward pass, their gradients.
struct LayerWeights {
  WeightTensors input_norm, middle_norm;
  WeightTensors query_norm, key_norm;  ///< of heads; empty in models without
  WeightTensors qkv, qkv_bias;         ///< the bias is empty in models without
  WeightTensors output, gate_up, down;

  /// Views into the layer's group and that of the norms. Where a group's gradients are empty, so are these.
  static LayerWeights view(const ParameterTable& table, std::int64_t layer, const GroupTensors& group,
                           const GroupTensors& norms);
};

/// The arithmetic of a layer on weights that are there for the time of the calls. It holds nothing else.
class TransformerLayer {
 public:
  /// `tp`, `constants` and `shape` must outlive the layer.
  TransformerLayer(const TensorParallel& tp, const LayerConstants& constants, const StageShape& shape,
                   const LayerWeights& weights);

  /// Where a layer's input comes from: the residual stream and the output of the linear operation before, not
  /// yet added to it. With an empty residual the layer's `input` is already in place.
  struct Incoming {
    Tensor residual, delta;
  };
  /// Fills `a` and writes the output of the down projection, to be added to a.middle, to `delta` (T/tp, C).
  /// incoming.delta may be `delta`. With a cache the rows' keys and values go there, and attention reads them
  /// from there.
  void forward(const LayerActivations& a, const Incoming& incoming, const DocumentRows& documents,
               const Tensor& delta, const LayerCache* cache = nullptr) const;
  enum class Rematerialized {
    for_backward,  ///< all but SwiGLU's output, which backward itself computes again
    everything,
  };
  /// Computes again what Recompute did not keep; bit-equal to the forward. Returns what of `pending` is left:
  /// all, or nothing where it would have overwritten what that reads.
  PendingWeightGradients rematerialize(const LayerActivations& a, const DocumentRows& documents,
                                       const Tensor& delta, Rematerialized what,
                                       PendingWeightGradients pending) const;
  /// inout d (T/tp, C): gradient of the output in, of the input out. Accumulates the norms' gradients.
  /// `pending` is computed behind the first communication. Returns the weight gradients that are left: they
  /// read a and g. A split backward leaves none: g then keeps what backward_weight needs.
  PendingWeightGradients backward(const LayerActivations& a, const LayerGradients& g,
                                  const LayerScratch& scratch, const DocumentRows& documents, const Tensor& d,
                                  PendingWeightGradients pending) const;
  /// The weight gradients of a split backward.
  void backward_weight(const LayerActivations& a, const LayerGradients& g) const;

 private:
  void attention_forward(const LayerActivations& a, const DocumentRows& documents, const Tensor& delta,
                         const LayerCache* cache = nullptr) const;
  void attend(const LayerActivations& a, const DocumentRows& documents, const LayerCache* cache) const;
  void mlp_forward(const LayerActivations& a) const;
  PendingWeightGradients mlp_backward(const LayerActivations& a, const LayerGradients& g,
                                      const LayerScratch& scratch, const Tensor& d,
                                      PendingWeightGradients pending) const;
  PendingWeightGradients attention_backward(const LayerActivations& a, const LayerGradients& g,
                                            const LayerScratch& scratch, const DocumentRows& documents,
                                            const Tensor& d, PendingWeightGradients pending) const;
  /// All rows of a linear operation's input, for its weight gradient: there, or on their way once more.
  PendingRows all_rows(const ColumnParallelLinear& linear, const Tensor& x, const Tensor& gathered) const;
  PendingRows all_rows_unless_split(const ColumnParallelLinear& linear, const Tensor& x,
                                    const Tensor& gathered) const;
  /// dx (T/tp, C), while `pending` is computed; returns the weight gradient from all rows of x.
  PendingWeightGradients column_backward(const ColumnParallelLinear& linear, const Tensor& dy, PendingRows& x,
                                         const Tensor& dx, PendingWeightGradients pending) const;
  /// Puts a weight gradient off, or computes it at once where no communication comes to hide it, and leaves
  /// it to backward_weight in a split backward.
  PendingWeightGradients put_off(const WeightGradient& gradient) const;
  void compute(const WeightGradient& gradient) const;

  const TensorParallel* tp_;
  const LayerConstants* constants_;
  const StageShape* shape_;
  WeightTensors input_norm_, middle_norm_, query_norm_, key_norm_;
  ColumnParallelLinear qkv_;
  RowParallelLinear output_;
  ColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace llama3d
