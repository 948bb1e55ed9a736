#pragma once
// One pipeline rank's part of the model: its chunks of layers, with the embedding before the first and the
// loss behind the last.

#include <functional>
#include <span>
#include <vector>

#include "compute/upload_ring.hpp"
#include "model/layer.hpp"
#include "model/stage_memory.hpp"
#include "parallel/embedding.hpp"
#include "parallel/parameter_store.hpp"

namespace llama3d {

/// Rows of one micro-batch on the host, T values each; see DocumentRows. A target below 0 is none.
struct MicroBatchRows {
  std::span<const std::int32_t> ids, targets, start, end, position;
};

class Stage {
 public:
  /// `store` has the groups of `table`. `totals` (2) fp64 gains the sum of losses and the number of targets
  /// on the last stage. All but config and layout must outlive the stage.
  Stage(const ModelConfig& config, const StageLayout& layout, const ParameterTable& table,
        ParameterStore& store, Device& device, Stream& stream, Communicator& tp_group,
        const StageMemory& memory, const Tensor& totals);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// Brings a micro-batch to the device. The slot must be free.
  void load(int slot, const MicroBatchRows& rows);
  /// input: shard (T/tp, C), the residual stream entering the chunk, kept until the last part of the
  /// backward; the first chunk fills it from the ids. output: the stream leaving it. The last chunk computes
  /// the loss instead; when `training` its output is the loss's gradient by that stream, and the head's
  /// gradients are added up. `last`: no other forward of this chunk follows in the step.
  void forward(int chunk, int slot, const Tensor& input, const Tensor& output, bool training, bool last);
  /// inout d: shard (T/tp, C), the gradient of the chunk's output in, of its input out. On the last chunk it
  /// comes from the forward. `last`: no other backward of this chunk follows in the step.
  void backward(int chunk, int slot, const Tensor& d, bool last);
  /// The second half of a split backward; `last` likewise.
  void backward_weight(int chunk, int slot, bool last);

  /// Blocks must divide the rows of a shard and be the same on all stages.
  void set_overlap(TensorParallelOverlap overlap) { tp_.set_overlap(overlap); }
  /// The first layer forward and backward, as in a step, on what slot 0 was loaded with. input and d: shards
  /// (T/tp, C). To be timed before a run begins.
  void run_first_layer(const Tensor& input, const Tensor& d);

  bool has_embedding(int chunk) const { return layout_.first_stage && chunk == 0; }
  bool has_loss(int chunk) const {
    return layout_.last_stage && chunk == static_cast<int>(layout_.chunks.size()) - 1;
  }
  const StageLayout& layout() const { return layout_; }

  /// Local logits (rows, V/tp) of the last chunk's last forward, chunk of rows by chunk of rows.
  void visit_logits(const std::function<void(std::int64_t first_row, const Tensor& logits)>& visit) const;
  /// Loss of every row of the last chunk's last forward: (T) fp32.
  Tensor losses() const { return memory_->head.losses; }

 private:
  /// Whose gradients a computation adds to, beside reading the weights.
  enum class Adds { nothing, norms, matrices, all };
  /// Uses a layer of the model, with its weights there for the time of `use`.
  template <class Use>
  void with_layer(std::int64_t layer, Adds adds, Use&& use);
  void embed(int slot, const Tensor& x);
  void embedding_backward(int slot, const Tensor& d, PendingWeightGradients pending, bool last);
  TransformerLayer::Incoming forward_layer(std::int64_t layer, const LayerActivations& a, int slot,
                                           const TransformerLayer::Incoming& incoming);
  /// Returns what is pending after it, the release of the layer's gradients included.
  PendingWeightGradients backward_layer(std::int64_t layer, const LayerActivations& a,
                                        const LayerGradients& g, int slot, const Tensor& d,
                                        PendingWeightGradients pending, bool last);
  void backward_weight_layer(std::int64_t layer, const LayerActivations& a, const LayerGradients& g, int slot,
                             bool last);
  void loss_forward(int slot, const Tensor& residual, const Tensor& gradient, bool training, bool last);
  VocabularyParallelLossHead head(const WeightTensors& weight) const;

  const LayerRange& layers(int chunk) const { return layout_.chunks[static_cast<std::size_t>(chunk)]; }
  const ActivationSlot& kept(int slot) const { return memory_->slots[static_cast<std::size_t>(slot)]; }
  /// Of the i-th layer of the slot's chunk.
  LayerActivations activations(int slot, std::int64_t i) const;
  const LayerGradients& layer_gradients(int slot, std::int64_t i) const;

  StageLayout layout_;
  const ParameterTable* table_;
  ParameterStore* store_;
  Stream* stream_;
  const StageMemory* memory_;
  TensorParallel tp_;
  LayerConstants constants_;
  Tensor totals_;
  std::vector<Tensor> inputs_;  ///< each slot's chunk input
  UploadRing host_rows_;        ///< (5, T) int32 each
};

}  // namespace llama3d
