#include "model/layer_activations.hpp"

#include <array>

namespace llama3d {
namespace {

/// An activation of a layer: what the plan allocates, the forward pass writes and the backward pass reads.
struct Activation {
  Tensor LayerActivations::*member;
  DType (*dtype)(const StageShape&);
  Shape (*shape)(const StageShape&);
  Recompute (*dropped_from)(const StageShape&);  ///< lowest level of recomputation that does not keep it
  bool (*exists)(const StageShape&) = [](const StageShape&) { return true; };
};

DType compute(const StageShape& s) {
  return s.compute();
}
DType statistic(const StageShape&) {
  return DType::fp32;
}
Recompute cheap(const StageShape&) {
  return Recompute::cheap;
}
Recompute full(const StageShape&) {
  return Recompute::full;
}
/// Of several ranks a shard's rows are needed only until those of all ranks are gathered.
Recompute until_gathered(const StageShape& s) {
  return s.tp > 1 ? Recompute::none : Recompute::cheap;
}
bool in_a_group(const StageShape& s) {
  return s.tp > 1;
}
bool where_heads_are_normalized(const StageShape& s) {
  return s.head_norm;
}
std::int64_t query_and_key_heads(const StageShape& s) {
  return s.attention.query_heads + s.attention.key_value_heads;
}
Shape shard(const StageShape& s) {
  return {s.shard_rows, s.hidden};
}
Shape shard_statistic(const StageShape& s) {
  return {s.shard_rows};
}
Shape all_rows(const StageShape& s) {
  return {s.rows, s.hidden};
}

using A = LayerActivations;
constexpr std::array<Activation, 14> activations{{
    {&A::input_rstd, statistic, shard_statistic, full},
    {&A::input_normed, compute, shard, until_gathered},
    {&A::input_gathered, compute, all_rows, cheap, in_a_group},
    {&A::qkv, compute,
     [](const StageShape& s) -> Shape {
       return {s.rows, s.attention.fused_columns()};
     },
     full},
    {&A::heads, compute,
     [](const StageShape& s) -> Shape {
       return {s.rows, query_and_key_heads(s) * s.attention.head_dim};
     },
     full, where_heads_are_normalized},
    {&A::heads_rstd, statistic,
     [](const StageShape& s) -> Shape {
       return {s.rows, query_and_key_heads(s)};
     },
     full, where_heads_are_normalized},
    {&A::attention, compute,
     [](const StageShape& s) -> Shape {
       return {s.rows, s.attention.output_columns()};
     },
     full},
    {&A::lse, statistic,
     [](const StageShape& s) -> Shape {
       return {s.attention.query_heads, s.rows};
     },
     full},
    {&A::middle, compute, shard, full},
    {&A::middle_rstd, statistic, shard_statistic, full},
    {&A::middle_normed, compute, shard, until_gathered},
    {&A::middle_gathered, compute, all_rows, cheap, in_a_group},
    {&A::gate_up, compute,
     [](const StageShape& s) -> Shape {
       return {s.rows, 2 * s.feed_forward};
     },
     full},
    {&A::gated, compute,
     [](const StageShape& s) -> Shape {
       return {s.rows, s.feed_forward};
     },
     cheap},
}};

bool kept(const Activation& activation, const StageShape& s) {
  return s.recompute < activation.dropped_from(s);
}

LayerActivations take(Arena& arena, const StageShape& s, bool those_kept) {
  LayerActivations a;
  for (const Activation& activation : activations)
    if (kept(activation, s) == those_kept && activation.exists(s))
      a.*activation.member = arena.take(activation.dtype(s), activation.shape(s));
  return a;
}

}  // namespace

LayerActivations LayerActivations::take_kept(Arena& arena, const StageShape& shape) {
  return take(arena, shape, true);
}

LayerActivations LayerActivations::take_shared(Arena& arena, const StageShape& shape) {
  return take(arena, shape, false);
}

LayerActivations LayerActivations::joined_with(const LayerActivations& other) const {
  LayerActivations joined = *this;
  for (const Activation& activation : activations)
    if (!(joined.*activation.member)) joined.*activation.member = other.*activation.member;
  return joined;
}

bool is_kept(Tensor LayerActivations::*activation, const StageShape& shape) {
  for (const Activation& one : activations)
    if (one.member == activation) return kept(one, shape);
  throw ContractViolation("an activation that the table does not have");
}

LayerGradients LayerGradients::take(Arena& arena, const StageShape& s) {
  LayerGradients g;
  g.qkv = arena.take(s.compute(), {s.rows, s.attention.fused_columns()});
  g.gate_up = arena.take(s.compute(), {s.rows, 2 * s.feed_forward});
  if (s.split_backward || s.tp > 1) {
    g.down_output = arena.take(s.compute(), {s.rows, s.hidden});
    // A joint backward is done with one before it needs the other.
    g.attention_output = s.split_backward ? arena.take(s.compute(), {s.rows, s.hidden}) : g.down_output;
  }
  return g;
}

LayerScratch LayerScratch::take(Arena& arena, const StageShape& s) {
  return {.gated = arena.take(s.compute(), {s.rows, s.feed_forward}),
          .attention = arena.take(s.compute(), {s.rows, s.attention.output_columns()}),
          .normed = arena.take(s.compute(), {s.shard_rows, s.hidden})};
}

}  // namespace llama3d
