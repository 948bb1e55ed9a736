#pragma once
// One pipeline rank's part of the model: its chunks of layers, with the embedding before the first and the
// loss behind the last, and the memory they compute in.

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "compute/upload_ring.hpp"
#include "model/layer.hpp"
#include "parallel/embedding.hpp"
#include "parallel/loss_head.hpp"

namespace llama3d {

/// Rows of one micro-batch on the host, T values each; see DocumentRows. A target below 0 is none.
struct MicroBatchRows {
  std::span<const std::int32_t> ids, targets, start, end, position;
};

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
  Tensor rows;                            ///< (5, T) int32: ids, targets, start, end, position

  Tensor ids() const { return rows.slice(0, 1).flat(); }
  Tensor targets() const { return rows.slice(1, 2).flat(); }
  DocumentRows documents() const {
    return {rows.slice(2, 3).flat(), rows.slice(3, 4).flat(), rows.slice(4, 5).flat()};
  }
};

/// Everything a stage computes in, parameters and gradients apart. The same code measures and allocates it.
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

class Stage {
 public:
  /// `parameters` and `gradients` are the rank's arenas, laid out by `table`. `totals` (2) fp64 gains the sum
  /// of losses and the number of targets on the last stage. All but the layout and the table must outlive the
  /// stage.
  Stage(const ModelConfig& config, const StageLayout& layout, const ParameterTable& table, Device& device,
        Stream& stream, Communicator& tp_group, const StageMemory& memory, const Tensor& parameters,
        const Tensor& gradients, const Tensor& totals);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// What others do, at their moment in a step, with the groups of parameters used here. Either may be empty.
  struct GroupCalls {
    using Call = std::function<void(GroupKind kind, std::int64_t layer)>;
    Call needed;  ///< the group is used next, for the first time in this step; norms are not announced
    Call ready;   ///< the group's gradients will not change any more in this step
  };

  /// Brings a micro-batch to the device. The slot must be free.
  void load(int slot, const MicroBatchRows& rows);
  /// input: shard (T/tp, C), the residual stream entering the chunk, kept until the last part of the
  /// backward; the first chunk fills it from the ids. output: the stream leaving it. The last chunk computes
  /// the loss instead; when `training` its output is the loss's gradient by that stream, and the head's
  /// gradients are added up.
  void forward(int chunk, int slot, const Tensor& input, const Tensor& output, bool training,
               const GroupCalls& calls = {});
  /// inout d: shard (T/tp, C), the gradient of the chunk's output in, of its input out. On the last chunk it
  /// comes from the forward. Layers get ready unless the backward is split.
  void backward(int chunk, int slot, const Tensor& d, const GroupCalls& calls = {});
  /// The second half of a split backward.
  void backward_weight(int chunk, int slot, const GroupCalls& calls = {});

  /// Blocks must divide the rows of a shard and be the same on all stages.
  void set_overlap(TensorParallelOverlap overlap) { tp_.set_overlap(overlap); }
  /// The products that blocks matter to, on random values: to be timed before a run begins.
  void draw_products_in_blocks() const;
  void run_products_in_blocks() const;

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
  std::span<const TransformerLayer> layers(int chunk) const;
  LayerActivations activations(int slot, std::size_t layer) const;
  const LayerGradients& layer_gradients(int slot, std::size_t layer) const;
  void loss_forward(int slot, const Tensor& residual, const Tensor& gradient, bool training,
                    const GroupCalls& calls);
  std::int64_t layer_index(int chunk, std::size_t layer) const;

  StageLayout layout_;
  Device* device_;
  Stream* stream_;
  const StageMemory* memory_;
  TensorParallel tp_;
  LayerConstants constants_;
  std::vector<TransformerLayer> layers_;
  std::optional<VocabularyParallelEmbedding> embedding_;
  std::optional<VocabularyParallelLossHead> head_;
  WeightTensors final_norm_;
  Tensor totals_;
  std::vector<Tensor> inputs_;  ///< each slot's chunk input
  UploadRing host_rows_;        ///< (5, T) int32 each
};

}  // namespace llama3d
