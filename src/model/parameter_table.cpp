#include "model/parameter_table.hpp"

#include <algorithm>

namespace llama3d {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void require_divides(int tp, std::int64_t size, const char* what, const ModelConfig& config) {
  if (size % tp == 0) return;
  throw ConfigurationError(
      fmt::format("`tp_size {}` does not divide the {} {} of {}; use a common divisor of {} "
                  "key-value heads and feed-forward size {}",
                  tp, size, what, config.name, config.key_value_heads, config.feed_forward));
}

}  // namespace

std::int64_t local_vocabulary(const ModelConfig& config, int tp) {
  return (config.vocabulary + tp - 1) / tp;
}

/// Lays parameters out one after the other.
class ParameterTable::Builder {
 public:
  Builder(ParameterTable& table, const ModelConfig& config, const ProcessGrid& grid)
      : table_(table),
        config_(config),
        tp_size_(grid.size(Axis::tensor)),
        tp_rank_(grid.rank(Axis::tensor)),
        dp_size_(grid.size(Axis::data)) {}

  void begin_group(GroupKind kind, std::int64_t layer = -1) {
    group_ = {.kind = kind, .layer = layer, .begin = table_.arena_elements_};
    group_.tp_replicated = kind == GroupKind::norms;
  }
  ParameterGroup& group() { return group_; }
  void end_group() {
    if (table_.arena_elements_ == group_.begin) return;
    table_.arena_elements_ =
        group_.begin + round_up(table_.arena_elements_ - group_.begin, alignment * dp_size_);
    group_.end = table_.arena_elements_;
    table_.group_places_[{group_.kind, group_.layer}] = table_.groups_.size();
    table_.groups_.push_back(group_);
  }

  /// The next tensor starts aligned; without this it continues a fused one.
  void align() { table_.arena_elements_ = round_up(table_.arena_elements_, alignment); }

  Parameter& add(ParameterRole role, std::string name, Shape shape, TensorSplit split) {
    Parameter p;
    p.role = role;
    p.layer = group_layer_;
    p.name = group_layer_ >= 0 ? fmt::format("model.layers.{}.{}", group_layer_, name) : std::move(name);
    p.shape = shape;
    p.split = split;
    p.rows = p.global_rows();
    p.columns = p.global_columns();
    if (split == TensorSplit::rows) p.rows = (p.rows + tp_size_ - 1) / tp_size_;
    if (split == TensorSplit::columns) p.columns /= tp_size_;
    p.first_row = split == TensorSplit::rows ? p.rows * tp_rank_ : 0;
    p.first_column = split == TensorSplit::columns ? p.columns * tp_rank_ : 0;
    p.existing_rows = std::clamp<std::int64_t>(p.global_rows() - p.first_row, 0, p.rows);
    p.offset = table_.arena_elements_;
    p.group = table_.groups_.size();  // the one begun
    table_.arena_elements_ += p.elements();
    table_.places_[{p.role, p.layer}] = table_.parameters_.size();
    table_.parameters_.push_back(std::move(p));
    return table_.parameters_.back();
  }

  void add_layer(std::int64_t layer) {
    const auto c = config_.hidden, f = config_.feed_forward, d = config_.head_dim;
    const auto q = config_.query_heads * d, kv = config_.key_value_heads * d;
    begin_group(GroupKind::layer, layer);
    group_layer_ = layer;
    align();
    add(ParameterRole::query, "self_attn.q_proj.weight", {q, c}, TensorSplit::rows);
    add(ParameterRole::key, "self_attn.k_proj.weight", {kv, c}, TensorSplit::rows);
    add(ParameterRole::value, "self_attn.v_proj.weight", {kv, c}, TensorSplit::rows);
    align();
    add(ParameterRole::attention_output, "self_attn.o_proj.weight", {c, q}, TensorSplit::columns);
    align();
    add(ParameterRole::gate, "mlp.gate_proj.weight", {f, c}, TensorSplit::rows);
    add(ParameterRole::up, "mlp.up_proj.weight", {f, c}, TensorSplit::rows);
    align();
    add(ParameterRole::down, "mlp.down_proj.weight", {c, f}, TensorSplit::columns);
    if (config_.architecture->qkv_bias) {
      align();
      add(ParameterRole::query_bias, "self_attn.q_proj.bias", {q}, TensorSplit::rows);
      add(ParameterRole::key_bias, "self_attn.k_proj.bias", {kv}, TensorSplit::rows);
      add(ParameterRole::value_bias, "self_attn.v_proj.bias", {kv}, TensorSplit::rows);
    }
    group_layer_ = -1;
    end_group();
  }

  void add_layer_norms(std::int64_t layer) {
    group_layer_ = layer;
    align();
    add(ParameterRole::input_norm, "input_layernorm.weight", {config_.hidden}, TensorSplit::replicated);
    align();
    add(ParameterRole::post_attention_norm, "post_attention_layernorm.weight", {config_.hidden},
        TensorSplit::replicated);
    if (config_.architecture->head_norm)
      for (const auto& [role, name] : {std::pair{ParameterRole::query_norm, "self_attn.q_norm.weight"},
                                       {ParameterRole::key_norm, "self_attn.k_norm.weight"}}) {
        align();
        add(role, name, {config_.head_dim}, TensorSplit::replicated);
      }
    group_layer_ = -1;
  }

 private:
  ParameterTable& table_;
  const ModelConfig& config_;
  int tp_size_, tp_rank_, dp_size_;
  std::int64_t group_layer_ = -1;
  ParameterGroup group_;
};

ParameterTable::ParameterTable(const ModelConfig& config, const ProcessGrid& grid,
                               const std::vector<LayerRange>& partition) {
  const int tp_size = grid.size(Axis::tensor), stages = grid.size(Axis::pipeline);
  require_divides(tp_size, config.key_value_heads, "key-value heads", config);
  require_divides(tp_size, config.query_heads, "query heads", config);
  require_divides(tp_size, config.feed_forward, "feed-forward size", config);

  const Shape vocabulary_shape{config.vocabulary, config.hidden};
  const char* const embedding_name = "model.embed_tokens.weight";
  const bool tied_apart = config.tied_embeddings && stages > 1;
  Builder builder(*this, config, grid);

  if (grid.first_stage()) {
    builder.begin_group(GroupKind::embedding);
    builder.group().tied = tied_apart;
    builder.add(ParameterRole::embedding, embedding_name, vocabulary_shape, TensorSplit::rows);
    builder.end_group();
  }
  std::vector<std::int64_t> layers;
  for (std::size_t chunk = 0; chunk < partition.size(); ++chunk)
    if (static_cast<int>(chunk) % stages == grid.rank(Axis::pipeline))
      for (auto layer = partition[chunk].begin; layer < partition[chunk].end; ++layer)
        layers.push_back(layer);
  for (const auto layer : layers) builder.add_layer(layer);
  if (grid.last_stage() && (!config.tied_embeddings || tied_apart)) {
    builder.begin_group(GroupKind::head);
    builder.group().tied = builder.group().tied_copy = tied_apart;
    builder
        .add(ParameterRole::head, tied_apart ? embedding_name : "lm_head.weight", vocabulary_shape,
             TensorSplit::rows)
        .tied_copy = tied_apart;
    builder.end_group();
  }
  builder.begin_group(GroupKind::norms);
  for (const auto layer : layers) builder.add_layer_norms(layer);
  if (grid.last_stage()) {
    builder.align();
    builder.add(ParameterRole::final_norm, "model.norm.weight", {config.hidden}, TensorSplit::replicated);
  }
  builder.end_group();
}

const Parameter* ParameterTable::find(ParameterRole role, std::int64_t layer) const {
  const auto found = places_.find({role, layer});
  return found == places_.end() ? nullptr : &parameters_[found->second];
}

const Parameter* ParameterTable::output_head() const {
  const Parameter* head = find(ParameterRole::head);
  return head ? head : find(ParameterRole::embedding);
}

std::optional<std::size_t> ParameterTable::find_group(GroupKind kind, std::int64_t layer) const {
  const auto found = group_places_.find({kind, layer});
  if (found == group_places_.end()) return std::nullopt;
  return found->second;
}

Tensor ParameterTable::view(const Tensor& group, ParameterRole role, std::int64_t layer) const {
  const Parameter* p = find(role, layer);
  LLAMA3D_EXPECT(p, "no parameter of role {} in layer {}", static_cast<int>(role), layer);
  if (!group) return {};
  const std::int64_t begin = p->offset - groups_[p->group].begin;
  const Tensor flat = group.slice(begin, begin + p->elements());
  return p->shape.rank() == 2 ? flat.reshape({p->rows, p->columns}) : flat;
}

Tensor ParameterTable::view_fused(const Tensor& group, ParameterRole first, ParameterRole last,
                                  std::int64_t layer) const {
  const Parameter* begin = find(first, layer);
  const Parameter* end = find(last, layer);
  LLAMA3D_EXPECT(begin && end, "no fused parameter in layer {}", layer);
  if (!group) return {};
  const std::int64_t elements = end->offset + end->elements() - begin->offset;
  const std::int64_t first_element = begin->offset - groups_[begin->group].begin;
  const Tensor flat = group.slice(first_element, first_element + elements);
  return begin->shape.rank() == 2 ? flat.reshape({elements / begin->columns, begin->columns}) : flat;
}

Tensor ParameterTable::view_qkv(const Tensor& group, std::int64_t layer) const {
  return view_fused(group, ParameterRole::query, ParameterRole::value, layer);
}

Tensor ParameterTable::view_qkv_bias(const Tensor& group, std::int64_t layer) const {
  return view_fused(group, ParameterRole::query_bias, ParameterRole::value_bias, layer);
}

Tensor ParameterTable::view_gate_up(const Tensor& group, std::int64_t layer) const {
  return view_fused(group, ParameterRole::gate, ParameterRole::up, layer);
}

}  // namespace llama3d
