#pragma once
// Llama 3 for inference: the forward pass alone, with the keys and values of many sequences kept in a cache.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compute/upload_ring.hpp"
#include "model/layer.hpp"
#include "parallel/embedding.hpp"
#include "parallel/logits_head.hpp"

namespace llama3d {

/// What decides the memory of inference on one tp rank.
struct InferenceLayout {
  StageShape shape;  ///< of the largest step; its positions are the capacity
  std::int64_t layers = 0;
  std::int64_t slots = 0;     ///< sequences in the cache
  std::int64_t capacity = 0;  ///< tokens of a sequence

  /// `rows`: most tokens of a step, rounded up to what steps have.
  static InferenceLayout make(const ModelConfig& config, int tp, DType compute, std::int64_t slots,
                              std::int64_t capacity, std::int64_t rows);
  /// Rows that a step of `tokens` is filled up to: few different sizes, since GPUs choose their matrix
  /// GEMMs anew for each, and a multiple of tp.
  std::int64_t padded(std::int64_t tokens) const;
};

/// Where a step computes; laid out for each step within the memory of the largest one.
struct InferenceStep {
  Tensor inputs;             ///< int32: five values a row (ids, start, end, position, slot), then the choices
  LayerActivations layer;    ///< of the layer under way
  Tensor delta;              ///< shard (T/tp, C)
  Tensor final_sum, normed;  ///< shard (T/tp, C)
  Tensor final_rstd;         ///< (T/tp) fp32
  Tensor chosen;             ///< (choices, C)
  Tensor logits;             ///< (tp, choices, V/tp) compute

  static InferenceStep take(Arena& arena, const InferenceLayout& layout, std::int64_t rows,
                            std::int64_t choices);
};

/// Everything inference computes in, parameters apart. The same code measures and allocates it.
struct InferenceMemory {
  std::vector<Tensor> caches;  ///< of every layer: (slots, capacity, 2 Hkv D) compute
  Tensor rope;                 ///< (capacity, D) fp32
  Tensor all_rows;             ///< (T, C), scratch of TensorParallel; empty for tp 1
  Tensor tokens;               ///< (slots) int32, those chosen, on their way to other tp ranks
  Tensor step;                 ///< what InferenceStep is laid out in

  static InferenceMemory take(Arena& cache, Arena& activations, const InferenceLayout& layout);
};

/// Tokens to run through the model, on the host.
struct InferenceRows {
  /// Of each row: its id, its place in the cache (see CacheRows).
  std::vector<std::int32_t> ids, slot, position;
  /// Rows after which the next token is wanted.
  std::vector<std::int32_t> choices;
  /// The rows are whole sequences from their first token on, one behind the other: the fast way in.
  bool whole = false;
};

class InferenceModel {
 public:
  /// `parameters` is laid out by `table`, for one pipeline stage. All but config and layout must outlive the
  /// model.
  InferenceModel(const ModelConfig& config, const InferenceLayout& layout, const ParameterTable& table,
                 Device& device, Stream& stream, Communicator& tp_group, const InferenceMemory& memory,
                 const Tensor& parameters);
  InferenceModel(const InferenceModel&) = delete;
  InferenceModel& operator=(const InferenceModel&) = delete;

  /// Queues a step: caches the rows' keys and values and returns the logits after the chosen rows,
  /// (tp, n, V/tp) compute with n at least choices.size(), valid until the next step. No more rows than
  /// layout().shape.rows, no more choices than slots.
  Tensor forward(const InferenceRows& rows);

  const InferenceLayout& layout() const { return layout_; }

 private:
  Tensor load(const InferenceRows& rows, const InferenceStep& step, std::int64_t padded);

  InferenceLayout layout_;
  Stream* stream_;
  const InferenceMemory* memory_;
  TensorParallel tp_;
  LayerConstants constants_;
  std::vector<TransformerLayer> layers_;
  std::optional<VocabularyParallelEmbedding> embedding_;
  std::optional<VocabularyParallelLogits> head_;
  Tensor final_norm_;
  UploadRing host_inputs_;
};

}  // namespace llama3d
