#include "model/layer.hpp"

namespace llama3d {
namespace {

/// Takes the tensors for which `wanted(lowest recompute level that drops it)`.
template <class Wanted>
LayerActivations take_activations(Arena& arena, const StageShape& s, Wanted wanted) {
  const auto take = [&](Recompute dropped_from, DType dtype, Shape shape) {
    return wanted(dropped_from) ? arena.take(dtype, shape) : Tensor();
  };
  // Of several ranks a shard's rows are needed until all of them are gathered.
  const Recompute shard_dropped = s.tp > 1 ? Recompute::none : Recompute::cheap;
  const auto take_gathered = [&] {
    return s.tp > 1 ? take(Recompute::cheap, s.compute, {s.rows, s.hidden}) : Tensor();
  };
  LayerActivations a;
  a.input_rstd = take(Recompute::full, DType::fp32, {s.shard_rows});
  a.input_normed = take(shard_dropped, s.compute, {s.shard_rows, s.hidden});
  a.input_gathered = take_gathered();
  a.qkv = take(Recompute::full, s.compute, {s.rows, s.attention.fused_columns()});
  a.attention = take(Recompute::full, s.compute, {s.rows, s.attention.output_columns()});
  a.lse = take(Recompute::full, DType::fp32, {s.attention.query_heads, s.rows});
  a.middle = take(Recompute::full, s.compute, {s.shard_rows, s.hidden});
  a.middle_rstd = take(Recompute::full, DType::fp32, {s.shard_rows});
  a.middle_normed = take(shard_dropped, s.compute, {s.shard_rows, s.hidden});
  a.middle_gathered = take_gathered();
  a.gate_up = take(Recompute::full, s.compute, {s.rows, 2 * s.feed_forward});
  a.gated = take(Recompute::cheap, s.compute, {s.rows, s.feed_forward});
  return a;
}

WeightTensors both(const Tensor& value, const Tensor& gradient) {
  return {value, gradient};
}

}  // namespace

LayerActivations LayerActivations::take_kept(Arena& arena, const StageShape& shape) {
  return take_activations(arena, shape,
                          [&](Recompute dropped_from) { return shape.recompute < dropped_from; });
}

LayerActivations LayerActivations::take_shared(Arena& arena, const StageShape& shape) {
  return take_activations(arena, shape,
                          [&](Recompute dropped_from) { return shape.recompute >= dropped_from; });
}

LayerActivations LayerActivations::joined_with(const LayerActivations& other) const {
  LayerActivations joined = *this;
  for (const auto member :
       {&LayerActivations::input_rstd, &LayerActivations::input_normed, &LayerActivations::input_gathered,
        &LayerActivations::qkv, &LayerActivations::attention, &LayerActivations::lse,
        &LayerActivations::middle, &LayerActivations::middle_rstd, &LayerActivations::middle_normed,
        &LayerActivations::middle_gathered, &LayerActivations::gate_up, &LayerActivations::gated})
    if (!(joined.*member)) joined.*member = other.*member;
  return joined;
}

LayerGradients LayerGradients::take(Arena& arena, const StageShape& s) {
  LayerGradients g;
  g.qkv = arena.take(s.compute, {s.rows, s.attention.fused_columns()});
  g.gate_up = arena.take(s.compute, {s.rows, 2 * s.feed_forward});
  if (s.split_backward || s.tp > 1) {
    g.down_output = arena.take(s.compute, {s.rows, s.hidden});
    // A joint backward is done with one before it needs the other.
    g.attention_output = s.split_backward ? arena.take(s.compute, {s.rows, s.hidden}) : g.down_output;
  }
  return g;
}

LayerScratch LayerScratch::take(Arena& arena, const StageShape& s) {
  return {.gated = arena.take(s.compute, {s.rows, s.feed_forward}),
          .attention = arena.take(s.compute, {s.rows, s.attention.output_columns()}),
          .normed = arena.take(s.compute, {s.shard_rows, s.hidden})};
}

TransformerLayer::TransformerLayer(const TensorParallel& tp, const LayerConstants& constants,
                                   const StageShape& shape, const ParameterTable& table, std::int64_t layer,
                                   const Tensor& parameters, const Tensor& gradients)
    : tp_(&tp),
      constants_(&constants),
      recompute_(shape.recompute),
      split_backward_(shape.split_backward),
      input_norm_(both(table.view(parameters, ParameterRole::input_norm, layer),
                       table.view(gradients, ParameterRole::input_norm, layer))),
      middle_norm_(both(table.view(parameters, ParameterRole::post_attention_norm, layer),
                        table.view(gradients, ParameterRole::post_attention_norm, layer))),
      qkv_(tp, both(table.view_qkv(parameters, layer), table.view_qkv(gradients, layer))),
      output_(tp, both(table.view(parameters, ParameterRole::attention_output, layer),
                       table.view(gradients, ParameterRole::attention_output, layer))),
      gate_up_(tp, both(table.view_gate_up(parameters, layer), table.view_gate_up(gradients, layer))),
      down_(tp, both(table.view(parameters, ParameterRole::down, layer),
                     table.view(gradients, ParameterRole::down, layer))) {}

void TransformerLayer::forward(const LayerActivations& a, const Incoming& incoming,
                               const DocumentRows& documents, const Tensor& delta,
                               const LayerCache* cache) const {
  Kernels& kernels = tp_->kernels();
  if (incoming.residual)
    kernels.add_rms_norm_forward(incoming.residual, incoming.delta, input_norm_.value,
                                 constants_->norm_epsilon, a.input, a.input_normed, a.input_rstd,
                                 tp_->stream());
  else
    kernels.rms_norm_forward(a.input, input_norm_.value, constants_->norm_epsilon, a.input_normed,
                             a.input_rstd, tp_->stream());
  attention_forward(a, documents, delta, cache);
  mlp_forward(a);
  down_.forward(a.gated, delta);
}

void TransformerLayer::attend(const LayerActivations& a, const DocumentRows& documents,
                              const LayerCache* cache) const {
  Kernels& kernels = tp_->kernels();
  const AttentionShape& shape = constants_->attention;
  if (cache) kernels.cache_append(a.qkv, cache->rows, shape, cache->entries, tp_->stream());
  if (cache && !cache->whole)
    kernels.attention_cached(a.qkv, cache->rows, shape, cache->entries, a.attention, tp_->stream());
  else
    kernels.attention_forward(a.qkv, documents, shape, a.attention, a.lse, tp_->stream());
}

void TransformerLayer::attention_forward(const LayerActivations& a, const DocumentRows& documents,
                                         const Tensor& delta, const LayerCache* cache) const {
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  qkv_.forward(a.input_normed, a.input_gathered, a.qkv);
  kernels.rope_forward(a.qkv, documents, constants_->rope, constants_->attention, stream);
  attend(a, documents, cache);
  output_.forward(a.attention, delta);
  kernels.add_rms_norm_forward(a.input, delta, middle_norm_.value, constants_->norm_epsilon, a.middle,
                               a.middle_normed, a.middle_rstd, stream);
}

void TransformerLayer::mlp_forward(const LayerActivations& a) const {
  gate_up_.forward(a.middle_normed, a.middle_gathered, a.gate_up);
  tp_->kernels().swiglu_forward(a.gate_up, a.gated, tp_->stream());
}

void TransformerLayer::rematerialize(const LayerActivations& a, const DocumentRows& documents,
                                     const Tensor& delta, Rematerialized what, DeferredWork& others) const {
  if (recompute_ == Recompute::none) return;
  // A whole forward gathers its inputs anew.
  if (recompute_ == Recompute::full) others.run();
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  kernels.rms_norm_forward(a.input, input_norm_.value, constants_->norm_epsilon, a.input_normed, a.input_rstd,
                           stream);
  if (recompute_ == Recompute::full) {
    attention_forward(a, documents, delta);
    gate_up_.forward(a.middle_normed, a.middle_gathered, a.gate_up);
  } else {
    kernels.rms_norm_forward(a.middle, middle_norm_.value, constants_->norm_epsilon, a.middle_normed,
                             a.middle_rstd, stream);
  }
  if (what == Rematerialized::everything) kernels.swiglu_forward(a.gate_up, a.gated, stream);
}

// Weight gradients are put off until something is communicated: that of a row-parallel product to the
// reduction behind the column-parallel one before it, that of the column-parallel product to the gathering
// before the next, of the layer before.
void TransformerLayer::mlp_backward(const LayerActivations& a, const LayerGradients& g,
                                    const LayerScratch& scratch, const Tensor& d,
                                    DeferredWork& others) const {
  const Tensor dy = down_.backward_input(d, g.down_output, scratch.gated, others);
  RowExchange rows = all_rows_unless_split(gate_up_, a.middle_normed, a.middle_gathered);
  const Tensor again = recompute_ == Recompute::none ? Tensor() : a.gated;
  tp_->kernels().swiglu_backward(a.gate_up, scratch.gated, g.gate_up, again, tp_->stream());
  if (!split_backward_) others.put([this, dy, x = a.gated] { down_.backward_weight(dy, x); });
  column_backward(gate_up_, g.gate_up, rows, scratch.normed, others);
  tp_->kernels().rms_norm_backward(scratch.normed, a.middle, middle_norm_.value, a.middle_rstd, d, d,
                                   middle_norm_.gradient, tp_->stream());
}

void TransformerLayer::attention_backward(const LayerActivations& a, const LayerGradients& g,
                                          const LayerScratch& scratch, const DocumentRows& documents,
                                          const Tensor& d, DeferredWork& others) const {
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  const Tensor dy = output_.backward_input(d, g.attention_output, scratch.attention, others);
  RowExchange rows = all_rows_unless_split(qkv_, a.input_normed, a.input_gathered);
  if (!split_backward_) others.put([this, dy, x = a.attention] { output_.backward_weight(dy, x); });
  kernels.attention_backward(a.qkv, documents, constants_->attention, a.attention, a.lse, scratch.attention,
                             g.qkv, stream);
  kernels.rope_backward(g.qkv, documents, constants_->rope, constants_->attention, stream);
  column_backward(qkv_, g.qkv, rows, scratch.normed, others);
  kernels.rms_norm_backward(scratch.normed, a.input, input_norm_.value, a.input_rstd, d, d,
                            input_norm_.gradient, stream);
}

RowExchange TransformerLayer::all_rows(const ColumnParallelLinear& linear, const Tensor& x,
                                       const Tensor& gathered) const {
  // Without recomputation they were kept, and a whole forward done again has just gathered them.
  const bool there = tp_->size() > 1 && recompute_ != Recompute::cheap;
  return there ? RowExchange(gathered, 1, tp_->stream()) : linear.gather(x, gathered);
}

RowExchange TransformerLayer::all_rows_unless_split(const ColumnParallelLinear& linear, const Tensor& x,
                                                    const Tensor& gathered) const {
  return split_backward_ ? RowExchange() : all_rows(linear, x, gathered);
}

void TransformerLayer::column_backward(const ColumnParallelLinear& linear, const Tensor& dy, RowExchange& x,
                                       const Tensor& dx, DeferredWork& others) const {
  linear.backward_input(dy, dx, others);
  if (split_backward_) return;
  x.wait();
  others.put([&linear, dy, all = x.full()] { linear.backward_weight(dy, all); });
}

void TransformerLayer::backward(const LayerActivations& a, const LayerGradients& g,
                                const LayerScratch& scratch, const DocumentRows& documents, const Tensor& d,
                                DeferredWork& others) const {
  mlp_backward(a, g, scratch, d, others);
  attention_backward(a, g, scratch, documents, d, others);
}

void TransformerLayer::backward_weight(const LayerActivations& a, const LayerGradients& g) const {
  RowExchange middle = all_rows(gate_up_, a.middle_normed, a.middle_gathered);
  RowExchange input = all_rows(qkv_, a.input_normed, a.input_gathered);
  down_.backward_weight(g.down_output, a.gated);
  middle.wait();
  gate_up_.backward_weight(g.gate_up, middle.full());
  output_.backward_weight(g.attention_output, a.attention);
  input.wait();
  qkv_.backward_weight(g.qkv, input.full());
}

void TransformerLayer::run_products_in_blocks(const LayerActivations& a, const LayerGradients& g,
                                              const LayerScratch& scratch, const Tensor& delta,
                                              DeferredWork& others) const {
  qkv_.forward(a.input_normed, a.input_gathered, a.qkv);
  output_.forward(a.attention, delta);
  gate_up_.forward(a.middle_normed, a.middle_gathered, a.gate_up);
  down_.forward(a.gated, delta);
  Tensor dy = down_.backward_input(delta, g.down_output, scratch.gated, others);
  RowExchange rows = all_rows_unless_split(gate_up_, a.middle_normed, a.middle_gathered);
  if (!split_backward_) others.put([this, dy, x = a.gated] { down_.backward_weight(dy, x); });
  column_backward(gate_up_, g.gate_up, rows, scratch.normed, others);
  dy = output_.backward_input(delta, g.attention_output, scratch.attention, others);
  rows = all_rows_unless_split(qkv_, a.input_normed, a.input_gathered);
  if (!split_backward_) others.put([this, dy, x = a.attention] { output_.backward_weight(dy, x); });
  column_backward(qkv_, g.qkv, rows, scratch.normed, others);
}

}  // namespace llama3d
