#include "model/layer.hpp"

#include <utility>

namespace llama3d {

LayerWeights LayerWeights::view(const ParameterTable& table, std::int64_t layer, const GroupTensors& group,
                                const GroupTensors& norms) {
  const auto weight = [&](const GroupTensors& tensors, ParameterRole role) {
    return WeightTensors{table.view(tensors.parameters, role, layer),
                         table.view(tensors.gradients, role, layer)};
  };
  const auto weight_if_any = [&](const GroupTensors& tensors, ParameterRole role) {
    return table.find(role, layer) ? weight(tensors, role) : WeightTensors();
  };
  const auto fused = [&](Tensor (ParameterTable::*view)(const Tensor&, std::int64_t) const) {
    return WeightTensors{(table.*view)(group.parameters, layer), (table.*view)(group.gradients, layer)};
  };
  const bool bias = table.find(ParameterRole::query_bias, layer);
  return {.input_norm = weight(norms, ParameterRole::input_norm),
          .middle_norm = weight(norms, ParameterRole::post_attention_norm),
          .query_norm = weight_if_any(norms, ParameterRole::query_norm),
          .key_norm = weight_if_any(norms, ParameterRole::key_norm),
          .qkv = fused(&ParameterTable::view_qkv),
          .qkv_bias = bias ? fused(&ParameterTable::view_qkv_bias) : WeightTensors(),
          .output = weight(group, ParameterRole::attention_output),
          .gate_up = fused(&ParameterTable::view_gate_up),
          .down = weight(group, ParameterRole::down)};
}

TransformerLayer::TransformerLayer(const TensorParallel& tp, const LayerConstants& constants,
                                   const StageShape& shape, const LayerWeights& weights)
    : tp_(&tp),
      constants_(&constants),
      shape_(&shape),
      input_norm_(weights.input_norm),
      middle_norm_(weights.middle_norm),
      query_norm_(weights.query_norm),
      key_norm_(weights.key_norm),
      qkv_(tp, weights.qkv, weights.qkv_bias),
      output_(tp, weights.output),
      gate_up_(tp, weights.gate_up),
      down_(tp, weights.down) {}

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
  if (query_norm_.value)
    kernels.head_norm_forward(a.qkv, query_norm_.value, key_norm_.value, constants_->norm_epsilon,
                              constants_->attention, a.heads, a.heads_rstd, stream);
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

PendingWeightGradients TransformerLayer::rematerialize(const LayerActivations& a,
                                                       const DocumentRows& documents, const Tensor& delta,
                                                       Rematerialized what,
                                                       PendingWeightGradients pending) const {
  if (is_kept(&LayerActivations::gated, *shape_)) return pending;
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  const bool whole = !is_kept(&LayerActivations::qkv, *shape_);
  // A whole forward gathers its inputs anew, over those that pending weight gradients read.
  if (whole) pending.compute(kernels, stream);
  kernels.rms_norm_forward(a.input, input_norm_.value, constants_->norm_epsilon, a.input_normed, a.input_rstd,
                           stream);
  if (whole) {
    attention_forward(a, documents, delta);
    gate_up_.forward(a.middle_normed, a.middle_gathered, a.gate_up);
  } else {
    kernels.rms_norm_forward(a.middle, middle_norm_.value, constants_->norm_epsilon, a.middle_normed,
                             a.middle_rstd, stream);
  }
  if (what == Rematerialized::everything) kernels.swiglu_forward(a.gate_up, a.gated, stream);
  return pending;
}

// A weight gradient waits until something is communicated: that of a row-parallel operation for the reduction
// behind the column-parallel one before it, that of the column-parallel one for the gathering before the
// next, which is in the layer before.
PendingWeightGradients TransformerLayer::mlp_backward(const LayerActivations& a, const LayerGradients& g,
                                                      const LayerScratch& scratch, const Tensor& d,
                                                      PendingWeightGradients pending) const {
  const Tensor dy = down_.backward_input(d, g.down_output, scratch.gated, std::move(pending));
  PendingRows rows = all_rows_unless_split(gate_up_, a.middle_normed, a.middle_gathered);
  const Tensor again = is_kept(&LayerActivations::gated, *shape_) ? Tensor() : a.gated;
  tp_->kernels().swiglu_backward(a.gate_up, scratch.gated, g.gate_up, again, tp_->stream());
  pending =
      column_backward(gate_up_, g.gate_up, rows, scratch.normed, put_off(down_.weight_gradient(dy, a.gated)));
  tp_->kernels().rms_norm_backward(scratch.normed, a.middle, middle_norm_.value, a.middle_rstd, d, d,
                                   middle_norm_.gradient, tp_->stream());
  return pending;
}

PendingWeightGradients TransformerLayer::attention_backward(const LayerActivations& a,
                                                            const LayerGradients& g,
                                                            const LayerScratch& scratch,
                                                            const DocumentRows& documents, const Tensor& d,
                                                            PendingWeightGradients pending) const {
  Kernels& kernels = tp_->kernels();
  Stream& stream = tp_->stream();
  const Tensor dy = output_.backward_input(d, g.attention_output, scratch.attention, std::move(pending));
  PendingRows rows = all_rows_unless_split(qkv_, a.input_normed, a.input_gathered);
  PendingWeightGradients output = put_off(output_.weight_gradient(dy, a.attention));
  kernels.attention_backward(a.qkv, documents, constants_->attention, a.attention, a.lse, scratch.attention,
                             g.qkv, stream);
  kernels.rope_backward(g.qkv, documents, constants_->rope, constants_->attention, stream);
  if (query_norm_.value)
    kernels.head_norm_backward(g.qkv, a.heads, query_norm_.value, key_norm_.value, a.heads_rstd,
                               constants_->attention, query_norm_.gradient, key_norm_.gradient, stream);
  pending = column_backward(qkv_, g.qkv, rows, scratch.normed, std::move(output));
  kernels.rms_norm_backward(scratch.normed, a.input, input_norm_.value, a.input_rstd, d, d,
                            input_norm_.gradient, stream);
  return pending;
}

PendingRows TransformerLayer::all_rows(const ColumnParallelLinear& linear, const Tensor& x,
                                       const Tensor& gathered) const {
  // They were kept, or a whole forward done again has just gathered them.
  const bool there = tp_->size() > 1 && (is_kept(&LayerActivations::input_gathered, *shape_) ||
                                         !is_kept(&LayerActivations::qkv, *shape_));
  return there ? PendingRows(gathered, 1, tp_->stream()) : linear.gather(x, gathered);
}

PendingRows TransformerLayer::all_rows_unless_split(const ColumnParallelLinear& linear, const Tensor& x,
                                                    const Tensor& gathered) const {
  return shape_->split_backward ? PendingRows() : all_rows(linear, x, gathered);
}

PendingWeightGradients TransformerLayer::column_backward(const ColumnParallelLinear& linear, const Tensor& dy,
                                                         PendingRows& x, const Tensor& dx,
                                                         PendingWeightGradients pending) const {
  if (shape_->split_backward) {
    linear.backward_input_in_blocks(dy, dx);
    return {};
  }
  linear.backward_input(dy, dx, std::move(pending));
  x.wait();
  return put_off(linear.weight_gradient(dy, x.full()));
}

PendingWeightGradients TransformerLayer::put_off(const WeightGradient& gradient) const {
  PendingWeightGradients pending;
  if (shape_->split_backward) return pending;
  if (tp_->size() == 1)
    compute(gradient);
  else
    pending.add(gradient);
  return pending;
}

void TransformerLayer::compute(const WeightGradient& gradient) const {
  gradient.compute(tp_->kernels(), tp_->stream());
}

PendingWeightGradients TransformerLayer::backward(const LayerActivations& a, const LayerGradients& g,
                                                  const LayerScratch& scratch, const DocumentRows& documents,
                                                  const Tensor& d, PendingWeightGradients pending) const {
  return attention_backward(a, g, scratch, documents, d, mlp_backward(a, g, scratch, d, std::move(pending)));
}

void TransformerLayer::backward_weight(const LayerActivations& a, const LayerGradients& g) const {
  PendingRows middle = all_rows(gate_up_, a.middle_normed, a.middle_gathered);
  PendingRows input = all_rows(qkv_, a.input_normed, a.input_gathered);
  compute(down_.weight_gradient(g.down_output, a.gated));
  middle.wait();
  compute(gate_up_.weight_gradient(g.gate_up, middle.full()));
  compute(output_.weight_gradient(g.attention_output, a.attention));
  input.wait();
  compute(qkv_.weight_gradient(g.qkv, input.full()));
}

}  // namespace llama3d
