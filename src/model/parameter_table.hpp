#pragma once
// Every parameter of a rank, once: what it is called, how large it is, how it is split, and where it lies.
// Initialization, optimizer, checkpoints, planner and parameter counts read this table; none repeats a shape.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/process_grid.hpp"
#include "compute/tensor.hpp"
#include "model/config.hpp"
#include "model/layer_partition.hpp"

namespace llama3d {

enum class ParameterRole {
  embedding,
  input_norm,
  query,
  key,
  value,
  query_bias,
  key_bias,
  value_bias,
  query_norm,
  key_norm,
  attention_output,
  post_attention_norm,
  gate,
  up,
  down,
  final_norm,
  head,
};

/// How the tp group shares a parameter.
enum class TensorSplit { replicated, rows, columns };

/// A parameter's shard on this rank. One-dimensional parameters count as (n, 1).
struct Parameter {
  std::string name;  ///< Hugging Face's
  ParameterRole role = ParameterRole::embedding;
  std::int64_t layer = -1;  ///< -1 outside the layers
  Shape shape;              ///< global
  TensorSplit split = TensorSplit::replicated;

  std::int64_t first_row = 0, first_column = 0;  ///< where the shard lies in the global tensor
  std::int64_t rows = 0, columns = 0;            ///< of the shard, vocabulary padding included
  std::int64_t existing_rows = 0;                ///< rows that the global tensor has; the others are zero
  std::int64_t offset = 0;                       ///< first element in the rank's parameter arena
  std::size_t group = 0;                         ///< index into ParameterTable::groups()
  bool tied_copy = false;  ///< the last stage's copy of the embedding: kept equal, never stored or counted

  std::int64_t elements() const { return rows * columns; }
  /// Weight decay applies: to all matrices, embeddings included, not to norms and biases.
  bool decays() const { return shape.rank() == 2; }
  /// Norms begin as 1, biases as 0, matrices at random.
  bool is_norm() const { return shape.rank() == 1 && !name.ends_with(".bias"); }
  std::int64_t global_rows() const { return shape[0]; }
  std::int64_t global_columns() const { return shape.rank() == 2 ? shape[1] : 1; }
};

/// What a group of parameters that are reduced, updated and gathered together holds.
enum class GroupKind { embedding, layer, head, norms };

/// A run of the parameter arena, a multiple of DP elements long (see ParameterTable::alignment).
struct ParameterGroup {
  GroupKind kind = GroupKind::layer;
  std::int64_t layer = -1;
  std::int64_t begin = 0, end = 0;  ///< elements of the arena
  bool tp_replicated = false;       ///< every tp rank holds it whole; its gradients are partial sums
  bool tied = false;                ///< lives on the first and the last stage
  bool tied_copy = false;
  std::int64_t elements() const { return end - begin; }
};

class ParameterTable {
 public:
  /// Groups and fused tensors start at multiples of this many elements, and a group is a multiple of this
  /// times DP.
  static constexpr std::int64_t alignment = 64;

  /// `partition`: the layers of every global chunk; chunk g belongs to stage g % pp.
  /// Throws ConfigurationError when tp does not divide key-value heads, query heads or the feed-forward size.
  ParameterTable(const ModelConfig& config, const ProcessGrid& grid,
                 const std::vector<LayerRange>& partition);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// In arena order: embedding, layers ascending, head, norms; those this rank has.
  const std::vector<ParameterGroup>& groups() const { return groups_; }
  /// Elements of the rank's parameter arena, paddings included.
  std::int64_t arena_elements() const { return arena_elements_; }

  /// The parameter of this role (and layer), or null when the rank has none.
  const Parameter* find(ParameterRole role, std::int64_t layer = -1) const;
  /// What the logits come from, on the last stage: the head, or the embedding where that is tied to it.
  const Parameter* output_head() const;
  /// The group of this kind (and layer), or none.
  std::optional<std::size_t> find_group(GroupKind kind, std::int64_t layer = -1) const;
  /// The elements of a group in an arena of arena_elements().
  Tensor group_of(const Tensor& arena, std::size_t group) const {
    return arena.slice(groups_[group].begin, groups_[group].end);
  }
  /// The view of one shard, (rows, columns) or (n), in a tensor of the elements of its group, of any dtype;
  /// empty in an empty one.
  Tensor view(const Tensor& group, ParameterRole role, std::int64_t layer = -1) const;
  /// Query, key and value shards as one (rows, C); gate and up as one.
  Tensor view_qkv(const Tensor& group, std::int64_t layer) const;
  /// Their biases as one (columns of qkv), in models that have them.
  Tensor view_qkv_bias(const Tensor& group, std::int64_t layer) const;
  Tensor view_gate_up(const Tensor& group, std::int64_t layer) const;

 private:
  class Builder;
  Tensor view_fused(const Tensor& group, ParameterRole first, ParameterRole last, std::int64_t layer) const;

  std::vector<Parameter> parameters_;
  std::map<std::pair<ParameterRole, std::int64_t>, std::size_t> places_;  ///< in parameters_
  std::vector<ParameterGroup> groups_;
  std::map<std::pair<GroupKind, std::int64_t>, std::size_t> group_places_;  ///< in groups_
  std::int64_t arena_elements_ = 0;
};

/// Vocabulary rows a tp rank holds: the vocabulary padded to a multiple of tp, divided.
std::int64_t local_vocabulary(const ModelConfig& config, int tp);

}  // namespace llama3d
