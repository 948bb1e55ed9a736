#include "model/stage.hpp"

#include <algorithm>

#include "model/rope.hpp"

namespace llama3d {
namespace {

constexpr std::int64_t row_kinds = 5;  // ids, targets, start, end, position
constexpr int rows_under_way = 4;      // micro-batches that the host may be ahead of the device

ActivationSlot take_slot(Arena& arena, const StageLayout& layout) {
  const StageShape& s = layout.shape;
  ActivationSlot slot;
  for (std::int64_t layer = 0; layer < layout.most_layers(); ++layer) {
    slot.layers.push_back(LayerActivations::take_kept(arena, s));
    if (layer > 0) slot.layers.back().input = arena.take(s.compute, {s.shard_rows, s.hidden});
    if (s.split_backward) slot.gradients.push_back(LayerGradients::take(arena, s));
  }
  slot.rows = arena.take(DType::int32, {row_kinds, s.rows});
  return slot;
}

}  // namespace

std::int64_t StageLayout::most_layers() const {
  std::int64_t most = 0;
  for (const auto& chunk : chunks) most = std::max(most, chunk.count());
  return most;
}

StageMemory StageMemory::take(Arena& activations, Arena& workspace, const StageLayout& layout) {
  const StageShape& s = layout.shape;
  StageMemory memory;
  for (int slot = 0; slot < layout.slots; ++slot) memory.slots.push_back(take_slot(activations, layout));

  if (s.tp > 1) memory.all_rows = workspace.take(s.compute, {s.rows, s.hidden});
  memory.delta = workspace.take(s.compute, {s.shard_rows, s.hidden});
  memory.rope = workspace.take(DType::fp32, {s.positions, s.attention.head_dim});
  memory.shared = LayerActivations::take_shared(workspace, s);
  if (!s.split_backward) memory.gradients = LayerGradients::take(workspace, s);
  memory.scratch = LayerScratch::take(workspace, s);
  if (layout.last_stage) {
    memory.final_sum = workspace.take(s.compute, {s.shard_rows, s.hidden});
    memory.final_normed = workspace.take(s.compute, {s.shard_rows, s.hidden});
    memory.final_rstd = workspace.take(DType::fp32, {s.shard_rows});
    memory.head =
        LossHeadBuffers::take(workspace, s.compute, s.rows, s.hidden, s.vocabulary, s.tp, s.logits_bytes);
  }
  return memory;
}

Stage::Stage(const ModelConfig& config, const StageLayout& layout, const ParameterTable& table,
             Device& device, Stream& stream, Communicator& tp_group, const StageMemory& memory,
             const Tensor& parameters, const Tensor& gradients, const Tensor& totals)
    : layout_(layout),
      device_(&device),
      stream_(&stream),
      memory_(&memory),
      tp_(device.kernels(), stream, tp_group, memory.all_rows),
      constants_{layout.shape.attention, static_cast<float>(config.norm_epsilon), memory.rope},
      totals_(totals),
      inputs_(memory.slots.size()),
      host_rows_(device, static_cast<std::size_t>(row_kinds * layout.shape.rows) * sizeof(std::int32_t),
                 rows_under_way) {
  for (const auto& chunk : layout_.chunks)
    for (auto layer = chunk.begin; layer < chunk.end; ++layer)
      layers_.emplace_back(tp_, constants_, layout_.shape, table, layer, parameters, gradients);
  const auto weight = [&](ParameterRole role) {
    return WeightTensors{table.view(parameters, role), table.view(gradients, role)};
  };
  if (const Parameter* p = table.find(ParameterRole::embedding))
    embedding_.emplace(tp_, weight(ParameterRole::embedding), p->first_row);
  if (layout_.last_stage) {
    const auto role = table.find(ParameterRole::head) ? ParameterRole::head : ParameterRole::embedding;
    const Parameter* p = table.find(role);
    head_.emplace(tp_, weight(role), p->first_row, p->existing_rows, memory.head);
    final_norm_ = weight(ParameterRole::final_norm);
  }
  upload_rope_table(config, memory.rope, device, stream);
}

std::span<const TransformerLayer> Stage::layers(int chunk) const {
  std::size_t first = 0;
  for (int c = 0; c < chunk; ++c)
    first += static_cast<std::size_t>(layout_.chunks[static_cast<std::size_t>(c)].count());
  return std::span(layers_).subspan(
      first, static_cast<std::size_t>(layout_.chunks[static_cast<std::size_t>(chunk)].count()));
}

std::int64_t Stage::layer_index(int chunk, std::size_t layer) const {
  return layout_.chunks[static_cast<std::size_t>(chunk)].begin + static_cast<std::int64_t>(layer);
}

LayerActivations Stage::activations(int slot, std::size_t layer) const {
  const auto& kept = memory_->slots[static_cast<std::size_t>(slot)].layers[layer];
  LayerActivations a = kept.joined_with(memory_->shared);
  if (layer == 0) a.input = inputs_[static_cast<std::size_t>(slot)];
  return a;
}

const LayerGradients& Stage::layer_gradients(int slot, std::size_t layer) const {
  return layout_.shape.split_backward ? memory_->slots[static_cast<std::size_t>(slot)].gradients[layer]
                                      : memory_->gradients;
}

void Stage::load(int slot, const MicroBatchRows& rows) {
  const auto t = static_cast<std::size_t>(layout_.shape.rows);
  auto* next = static_cast<std::int32_t*>(host_rows_.next());
  for (const auto& values : {rows.ids, rows.targets, rows.start, rows.end, rows.position}) {
    LLAMA3D_EXPECT(values.size() == t, "{} rows of a micro-batch of {}", values.size(), t);
    next = std::copy(values.begin(), values.end(), next);
  }
  host_rows_.upload(memory_->slots[static_cast<std::size_t>(slot)].rows, *stream_);
}

void Stage::forward(int chunk, int slot, const Tensor& input, const Tensor& output, bool training,
                    const GroupCalls& calls) {
  const ActivationSlot& kept = memory_->slots[static_cast<std::size_t>(slot)];
  inputs_[static_cast<std::size_t>(slot)] = input;
  if (has_embedding(chunk)) {
    if (calls.needed) calls.needed(GroupKind::embedding, -1);
    embedding_->forward(kept.ids(), input);
  }
  TransformerLayer::Incoming incoming;
  const auto chunk_layers = layers(chunk);
  for (std::size_t i = 0; i < chunk_layers.size(); ++i) {
    const LayerActivations a = activations(slot, i);
    if (calls.needed) calls.needed(GroupKind::layer, layer_index(chunk, i));
    chunk_layers[i].forward(a, incoming, kept.documents(), memory_->delta);
    incoming = {a.middle, memory_->delta};
  }
  if (has_loss(chunk))
    loss_forward(slot, incoming.residual, output, training, calls);
  else
    tp_.kernels().add(incoming.residual, incoming.delta, output, *stream_);
}

void Stage::loss_forward(int slot, const Tensor& residual, const Tensor& gradient, bool training,
                         const GroupCalls& calls) {
  Kernels& kernels = tp_.kernels();
  const ActivationSlot& kept = memory_->slots[static_cast<std::size_t>(slot)];
  kernels.add_rms_norm_forward(residual, memory_->delta, final_norm_.value, constants_.norm_epsilon,
                               memory_->final_sum, memory_->final_normed, memory_->final_rstd, *stream_);
  if (!training) {
    head_->loss(memory_->final_normed, kept.targets(), totals_);
    return;
  }
  if (calls.needed) calls.needed(GroupKind::head, -1);
  const Tensor dnormed = memory_->scratch.normed;
  head_->loss_and_gradient(memory_->final_normed, kept.targets(), totals_, dnormed);
  kernels.rms_norm_backward(dnormed, memory_->final_sum, final_norm_.value, memory_->final_rstd, Tensor(),
                            gradient, final_norm_.gradient, *stream_);
  if (calls.ready) calls.ready(GroupKind::head, -1);
}

void Stage::backward(int chunk, int slot, const Tensor& d, const GroupCalls& calls) {
  const ActivationSlot& kept = memory_->slots[static_cast<std::size_t>(slot)];
  const auto chunk_layers = layers(chunk);
  DeferredWork others(layout_.shape.tp == 1);
  for (std::size_t i = chunk_layers.size(); i-- > 0;) {
    const LayerActivations a = activations(slot, i);
    chunk_layers[i].rematerialize(a, kept.documents(), memory_->delta,
                                  TransformerLayer::Rematerialized::for_backward, others);
    chunk_layers[i].backward(a, layer_gradients(slot, i), memory_->scratch, kept.documents(), d, others);
    if (calls.ready && !layout_.shape.split_backward)
      others.put([&calls, layer = layer_index(chunk, i)] { calls.ready(GroupKind::layer, layer); });
  }
  if (has_embedding(chunk)) embedding_->backward(kept.ids(), d, others);
  others.run();
  if (has_embedding(chunk) && calls.ready) calls.ready(GroupKind::embedding, -1);
}

void Stage::backward_weight(int chunk, int slot, const GroupCalls& calls) {
  const ActivationSlot& kept = memory_->slots[static_cast<std::size_t>(slot)];
  DeferredWork others(true);
  const auto chunk_layers = layers(chunk);
  for (std::size_t i = chunk_layers.size(); i-- > 0;) {
    const LayerActivations a = activations(slot, i);
    chunk_layers[i].rematerialize(a, kept.documents(), memory_->delta,
                                  TransformerLayer::Rematerialized::everything, others);
    chunk_layers[i].backward_weight(a, layer_gradients(slot, i));
    if (calls.ready) calls.ready(GroupKind::layer, layer_index(chunk, i));
  }
}

void Stage::draw_products_in_blocks() const {
  const LayerActivations a = memory_->slots.front().layers.front().joined_with(memory_->shared);
  std::uint64_t key = 0;
  for (const Tensor& tensor : {a.input_normed, a.attention, a.middle_normed, a.gated, memory_->delta,
                               layer_gradients(0, 0).gate_up, layer_gradients(0, 0).qkv})
    tp_.kernels().fill_normal(tensor, ++key, 0, 0, tensor.columns(), 1, *stream_);
}

void Stage::run_products_in_blocks() const {
  const LayerActivations a = memory_->slots.front().layers.front().joined_with(memory_->shared);
  DeferredWork others(layout_.shape.tp == 1);
  layers_.front().run_products_in_blocks(a, layer_gradients(0, 0), memory_->scratch, memory_->delta, others);
  others.run();
}

void Stage::visit_logits(const std::function<void(std::int64_t, const Tensor&)>& visit) const {
  head_->visit_logits(memory_->final_normed, visit);
}

}  // namespace llama3d
