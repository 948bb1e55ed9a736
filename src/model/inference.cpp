#include "model/inference.hpp"

#include <algorithm>
#include <bit>

#include "comm/labels.hpp"
#include "model/rope.hpp"

namespace llama3d {
namespace {

constexpr std::int64_t row_kinds = 5;  // ids, start, end, position, slot

std::int64_t multiple_of(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// An arena over memory that belongs to another.
Arena arena_within(const Tensor& memory) {
  return {DeviceMemory(memory.data(), [](void*) {}), memory.bytes()};
}

}  // namespace

InferenceLayout InferenceLayout::make(const ModelConfig& config, int tp, DType compute, std::int64_t slots,
                                      std::int64_t capacity, std::int64_t rows) {
  InferenceLayout layout;
  layout.shape.tp = tp;
  layout.shape = StageShape::make(config, tp, 1, layout.padded(rows));
  layout.shape.precision = &precision_of(compute);
  layout.shape.recompute = Recompute::full;  // nothing of a layer is kept
  layout.shape.positions = capacity;
  layout.layers = config.layers;
  layout.slots = slots;
  layout.capacity = capacity;
  return layout;
}

std::int64_t InferenceLayout::padded(std::int64_t tokens) const {
  // Four sizes between a power of two and the next.
  const auto before = static_cast<std::uint64_t>(std::max<std::int64_t>(tokens - 1, 1));
  const auto quarter = std::max<std::int64_t>(static_cast<std::int64_t>(std::bit_floor(before)) / 4, 1);
  return multiple_of(std::max<std::int64_t>(tokens, 1), multiple_of(quarter, shape.tp));
}

InferenceStep InferenceStep::take(Arena& arena, const InferenceLayout& layout, std::int64_t rows,
                                  std::int64_t choices) {
  StageShape s = layout.shape;
  s.rows = rows;
  s.shard_rows = rows / s.tp;
  const Shape shard{s.shard_rows, s.hidden};
  InferenceStep step;
  step.inputs = arena.take(DType::int32, {row_kinds * rows + choices});
  step.layer = LayerActivations::take_shared(arena, s);
  step.layer.input = arena.take(s.compute(), shard);
  step.delta = arena.take(s.compute(), shard);
  step.final_sum = arena.take(s.compute(), shard);
  step.normed = arena.take(s.compute(), shard);
  step.final_rstd = arena.take(DType::fp32, {s.shard_rows});
  step.chosen = arena.take(s.compute(), {choices, s.hidden});
  step.logits = arena.take(s.compute(), {s.tp, choices, s.vocabulary});
  return step;
}

InferenceMemory InferenceMemory::take(Arena& cache, Arena& activations, const InferenceLayout& layout) {
  const StageShape& s = layout.shape;
  InferenceMemory memory;
  for (std::int64_t layer = 0; layer < layout.layers; ++layer)
    memory.caches.push_back(
        cache.take(s.compute(),
                   {layout.slots, layout.capacity, 2 * s.attention.key_value_heads * s.attention.head_dim}));
  memory.rope = activations.take(DType::fp32, {s.positions, s.attention.head_dim});
  if (s.tp > 1) memory.all_rows = activations.take(s.compute(), {s.rows, s.hidden});
  memory.tokens = activations.take(DType::int32, {layout.slots});
  Arena measured;
  InferenceStep::take(measured, layout, s.rows, layout.padded(layout.slots));
  memory.step = activations.take(DType::fp32, {static_cast<std::int64_t>(measured.used() / sizeof(float))});
  return memory;
}

InferenceModel::InferenceModel(const ModelConfig& config, const InferenceLayout& layout,
                               const ParameterTable& table, Device& device, Stream& stream,
                               Communicator& tp_group, const InferenceMemory& memory,
                               const Tensor& parameters)
    : layout_(layout),
      stream_(&stream),
      memory_(&memory),
      tp_(device.kernels(), stream, tp_group, memory.all_rows),
      constants_{layout.shape.attention, static_cast<float>(config.norm_epsilon), memory.rope},
      host_inputs_(device,
                   static_cast<std::size_t>(row_kinds * layout.shape.rows + layout.padded(layout.slots)) *
                       sizeof(std::int32_t),
                   2) {
  const auto group = [&](GroupKind kind, std::int64_t layer = -1) {
    return table.group_of(parameters, table.find_group(kind, layer).value());
  };
  const Tensor norms = group(GroupKind::norms);
  for (std::int64_t layer = 0; layer < layout_.layers; ++layer)
    layers_.emplace_back(tp_, constants_, layout_.shape,
                         LayerWeights::view(table, layer, {group(GroupKind::layer, layer), {}}, {norms, {}}));
  final_norm_ = table.view(norms, ParameterRole::final_norm);
  const Parameter &embedding = *table.find(ParameterRole::embedding), &head = *table.output_head();
  embedding_.emplace(tp_, WeightTensors{table.view(group(GroupKind::embedding), embedding.role), {}},
                     embedding.first_row);
  head_.emplace(tp_, table.view(table.group_of(parameters, head.group), head.role));
  upload_rope_table(config, memory.rope, device, stream);
}

Tensor InferenceModel::load(const InferenceRows& rows, const InferenceStep& step, std::int64_t padded) {
  const std::size_t tokens = rows.ids.size();
  auto* host = static_cast<std::int32_t*>(host_inputs_.next());
  std::fill_n(host, step.inputs.elements(), 0);
  std::int32_t *ids = host, *start = host + padded, *end = start + padded, *position = end + padded,
               *slot = position + padded;
  std::copy(rows.ids.begin(), rows.ids.end(), ids);
  std::copy(rows.position.begin(), rows.position.end(), position);
  std::copy(rows.slot.begin(), rows.slot.end(), slot);
  std::copy(rows.choices.begin(), rows.choices.end(), slot + padded);
  // A row that begins no whole sequence, padding among them, is a document of its own.
  for (std::int64_t t = 0; t < padded; ++t) {
    const bool continues = rows.whole && t < static_cast<std::int64_t>(tokens) && position[t] > 0;
    start[t] = static_cast<std::int32_t>(continues ? start[t - 1] : t);
  }
  for (std::int64_t t = padded; t-- > 0;)
    end[t] = static_cast<std::int32_t>(t + 1 < padded && start[t + 1] == start[t] ? end[t + 1] : t + 1);
  std::fill_n(slot + tokens, padded - static_cast<std::int64_t>(tokens), -1);
  host_inputs_.upload(step.inputs, *stream_);
  return step.inputs;
}

Tensor InferenceModel::forward(const InferenceRows& rows) {
  const auto tokens = static_cast<std::int64_t>(rows.ids.size()),
             choices = static_cast<std::int64_t>(rows.choices.size());
  LLAMA3D_EXPECT(tokens <= layout_.shape.rows && choices <= layout_.slots,
                 "{} rows and {} choices in a step of at most {} and {}", tokens, choices, layout_.shape.rows,
                 layout_.slots);
  const std::int64_t t = std::min(layout_.padded(tokens), layout_.shape.rows),
                     n = std::min(layout_.padded(choices), layout_.padded(layout_.slots));
  Arena arena = arena_within(memory_->step);
  const InferenceStep step = InferenceStep::take(arena, layout_, t, n);
  const Tensor inputs = load(rows, step, t);
  const auto kind = [&](std::int64_t k) { return inputs.slice(k * t, (k + 1) * t); };
  const DocumentRows documents{kind(1), kind(2), kind(3)};
  Kernels& kernels = tp_.kernels();

  embedding_->forward(kind(0), step.layer.input);
  TransformerLayer::Incoming incoming;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const LayerCache cache{memory_->caches[i], {kind(4), kind(3)}, rows.whole};
    layers_[i].forward(step.layer, incoming, documents, step.delta, &cache);
    incoming = {step.layer.middle, step.delta};
  }
  kernels.add_rms_norm_forward(incoming.residual, incoming.delta, final_norm_, constants_.norm_epsilon,
                               step.final_sum, step.normed, step.final_rstd, *stream_);
  const Tensor all = tp_.gather(step.normed, step.layer.input_gathered, labels::tp_all_gather_input);
  // Picking rows is what an embedding does.
  kernels.embedding_forward(inputs.slice(row_kinds * t, inputs.elements()), all, 0, step.chosen, *stream_);
  head_->forward(step.chosen, step.logits);
  return step.logits;
}

}  // namespace llama3d
