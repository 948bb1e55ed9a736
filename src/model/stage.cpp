#include "model/stage.hpp"

#include <algorithm>
#include <utility>

#include "model/rope.hpp"

namespace llama3d {
namespace {

constexpr int rows_under_way = 4;  // micro-batches that the host may be ahead of the device

}  // namespace

Stage::Stage(const ModelConfig& config, const StageLayout& layout, const ParameterTable& table,
             ParameterStore& store, Device& device, Stream& stream, Communicator& tp_group,
             const StageMemory& memory, const Tensor& totals)
    : layout_(layout),
      table_(&table),
      store_(&store),
      stream_(&stream),
      memory_(&memory),
      tp_(device.kernels(), stream, tp_group, memory.all_rows),
      constants_{layout.shape.attention, static_cast<float>(config.norm_epsilon), memory.rope},
      totals_(totals),
      inputs_(memory.slots.size()),
      host_rows_(
          device,
          static_cast<std::size_t>(ActivationSlot::row_kinds * layout.shape.rows) * sizeof(std::int32_t),
          rows_under_way) {
  upload_rope_table(config, memory.rope, device, stream);
}

LayerActivations Stage::activations(int slot, std::int64_t i) const {
  LayerActivations a = kept(slot).layers[static_cast<std::size_t>(i)].joined_with(memory_->shared);
  if (i == 0) a.input = inputs_[static_cast<std::size_t>(slot)];
  return a;
}

const LayerGradients& Stage::layer_gradients(int slot, std::int64_t i) const {
  return layout_.shape.split_backward ? kept(slot).gradients[static_cast<std::size_t>(i)]
                                      : memory_->gradients;
}

void Stage::load(int slot, const MicroBatchRows& rows) {
  const auto t = static_cast<std::size_t>(layout_.shape.rows);
  auto* next = static_cast<std::int32_t*>(host_rows_.next());
  for (const auto& values : {rows.ids, rows.targets, rows.start, rows.end, rows.position}) {
    LLAMA3D_EXPECT(values.size() == t, "{} rows of a micro-batch of {}", values.size(), t);
    next = std::copy(values.begin(), values.end(), next);
  }
  host_rows_.upload(kept(slot).rows, *stream_);
}

template <class Use>
void Stage::with_layer(std::int64_t layer, Adds adds, Use&& use) {
  const std::size_t group = table_->find_group(GroupKind::layer, layer).value(),
                    norms = table_->find_group(GroupKind::norms).value();
  const bool adds_norms = adds == Adds::norms || adds == Adds::all,
             adds_matrices = adds == Adds::matrices || adds == Adds::all;
  const auto acquire = [this](std::size_t g, bool gradients) {
    return GroupTensors{store_->acquire(g), gradients ? store_->acquire_gradients(g) : Tensor()};
  };
  use(TransformerLayer(
      tp_, constants_, layout_.shape,
      LayerWeights::view(*table_, layer, acquire(group, adds_matrices), acquire(norms, adds_norms))));
  store_->release(group);
  store_->release(norms);
  // They get complete when the optimizer has added those of all tp ranks.
  if (adds_norms) store_->release_gradients(norms, false);
}

void Stage::embed(int slot, const Tensor& x) {
  const std::size_t group = table_->find_group(GroupKind::embedding).value();
  const WeightTensors weight{table_->view(store_->acquire(group), ParameterRole::embedding), {}};
  VocabularyParallelEmbedding(tp_, weight, table_->find(ParameterRole::embedding)->first_row)
      .forward(kept(slot).ids(), x);
  store_->release(group);
}

void Stage::embedding_backward(int slot, const Tensor& d, PendingWeightGradients pending, bool last) {
  const std::size_t group = table_->find_group(GroupKind::embedding).value();
  const WeightTensors weight{{}, table_->view(store_->acquire_gradients(group), ParameterRole::embedding)};
  VocabularyParallelEmbedding(tp_, weight, table_->find(ParameterRole::embedding)->first_row)
      .backward(kept(slot).ids(), d, std::move(pending));
  store_->release_gradients(group, last);
}

TransformerLayer::Incoming Stage::forward_layer(std::int64_t layer, const LayerActivations& a, int slot,
                                                const TransformerLayer::Incoming& incoming) {
  with_layer(layer, Adds::nothing, [&](const TransformerLayer& l) {
    l.forward(a, incoming, kept(slot).documents(), memory_->delta);
  });
  return {a.middle, memory_->delta};
}

PendingWeightGradients Stage::backward_layer(std::int64_t layer, const LayerActivations& a,
                                             const LayerGradients& g, int slot, const Tensor& d,
                                             PendingWeightGradients pending, bool last) {
  const DocumentRows documents = kept(slot).documents();
  const bool split = layout_.shape.split_backward;
  with_layer(layer, split ? Adds::norms : Adds::all, [&](const TransformerLayer& l) {
    pending = l.rematerialize(a, documents, memory_->delta, TransformerLayer::Rematerialized::for_backward,
                              std::move(pending));
    pending = l.backward(a, g, memory_->scratch, documents, d, std::move(pending));
  });
  if (!split) pending.add_release(*store_, table_->find_group(GroupKind::layer, layer).value(), last);
  // In a group of one nothing else is pending.
  if (layout_.shape.tp == 1) pending.compute(tp_.kernels(), *stream_);
  return pending;
}

void Stage::backward_weight_layer(std::int64_t layer, const LayerActivations& a, const LayerGradients& g,
                                  int slot, bool last) {
  with_layer(layer, Adds::matrices, [&](const TransformerLayer& l) {
    l.rematerialize(a, kept(slot).documents(), memory_->delta, TransformerLayer::Rematerialized::everything,
                    {});
    l.backward_weight(a, g);
  });
  store_->release_gradients(table_->find_group(GroupKind::layer, layer).value(), last);
}

void Stage::forward(int chunk, int slot, const Tensor& input, const Tensor& output, bool training,
                    bool last) {
  inputs_[static_cast<std::size_t>(slot)] = input;
  if (has_embedding(chunk)) embed(slot, input);
  TransformerLayer::Incoming incoming;
  for (std::int64_t i = 0; i < layers(chunk).count(); ++i)
    incoming = forward_layer(layers(chunk).begin + i, activations(slot, i), slot, incoming);
  if (has_loss(chunk))
    loss_forward(slot, incoming.residual, output, training, last);
  else
    tp_.kernels().add(incoming.residual, incoming.delta, output, *stream_);
}

VocabularyParallelLossHead Stage::head(const WeightTensors& weight) const {
  const Parameter& p = *table_->output_head();
  return {tp_, weight, p.first_row, p.existing_rows, memory_->head};
}

void Stage::loss_forward(int slot, const Tensor& residual, const Tensor& gradient, bool training, bool last) {
  Kernels& kernels = tp_.kernels();
  const Parameter& p = *table_->output_head();
  const std::size_t norms = table_->find_group(GroupKind::norms).value();
  const Tensor norm = table_->view(store_->acquire(norms), ParameterRole::final_norm);
  WeightTensors weight{table_->view(store_->acquire(p.group), p.role), {}};
  kernels.add_rms_norm_forward(residual, memory_->delta, norm, constants_.norm_epsilon, memory_->final_sum,
                               memory_->final_normed, memory_->final_rstd, *stream_);
  if (training) {
    weight.gradient = table_->view(store_->acquire_gradients(p.group), p.role);
    const Tensor dnorm = table_->view(store_->acquire_gradients(norms), ParameterRole::final_norm),
                 dnormed = memory_->scratch.normed;
    head(weight).loss_and_gradient(memory_->final_normed, kept(slot).targets(), totals_, dnormed);
    kernels.rms_norm_backward(dnormed, memory_->final_sum, norm, memory_->final_rstd, Tensor(), gradient,
                              dnorm, *stream_);
    store_->release_gradients(norms, false);
    // An embedding that is the head, too, gets its last gradients as embedding.
    store_->release_gradients(p.group, last && p.role == ParameterRole::head);
  } else {
    head(weight).loss(memory_->final_normed, kept(slot).targets(), totals_);
  }
  store_->release(p.group);
  store_->release(norms);
}

void Stage::backward(int chunk, int slot, const Tensor& d, bool last) {
  PendingWeightGradients pending;
  for (std::int64_t i = layers(chunk).count(); i-- > 0;)
    pending = backward_layer(layers(chunk).begin + i, activations(slot, i), layer_gradients(slot, i), slot, d,
                             std::move(pending), last);
  if (has_embedding(chunk))
    embedding_backward(slot, d, std::move(pending), last);
  else
    pending.compute(tp_.kernels(), *stream_);
}

void Stage::backward_weight(int chunk, int slot, bool last) {
  for (std::int64_t i = layers(chunk).count(); i-- > 0;)
    backward_weight_layer(layers(chunk).begin + i, activations(slot, i), layer_gradients(slot, i), slot,
                          last);
}

void Stage::run_first_layer(const Tensor& input, const Tensor& d) {
  const std::int64_t layer = layout_.chunks.front().begin;
  inputs_.front() = input;
  const LayerActivations a = activations(0, 0);
  const LayerGradients& g = layer_gradients(0, 0);
  forward_layer(layer, a, 0, {});
  backward_layer(layer, a, g, 0, d, {}, false).compute(tp_.kernels(), *stream_);
  if (layout_.shape.split_backward) backward_weight_layer(layer, a, g, 0, false);
}

void Stage::visit_logits(const std::function<void(std::int64_t, const Tensor&)>& visit) const {
  const Parameter& p = *table_->output_head();
  head({table_->view(store_->acquire(p.group), p.role), {}}).visit_logits(memory_->final_normed, visit);
  store_->release(p.group);
}

}  // namespace llama3d
