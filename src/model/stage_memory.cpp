#include "model/stage_memory.hpp"

#include <algorithm>

namespace llama3d {
namespace {

ActivationSlot take_slot(Arena& arena, const StageLayout& layout) {
  const StageShape& s = layout.shape;
  ActivationSlot slot;
  for (std::int64_t layer = 0; layer < layout.most_layers(); ++layer) {
    slot.layers.push_back(LayerActivations::take_kept(arena, s));
    if (layer > 0) slot.layers.back().input = arena.take(s.compute(), {s.shard_rows, s.hidden});
    if (s.split_backward) slot.gradients.push_back(LayerGradients::take(arena, s));
  }
  slot.rows = arena.take(DType::int32, {ActivationSlot::row_kinds, s.rows});
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

  if (s.tp > 1) memory.all_rows = workspace.take(s.compute(), {s.rows, s.hidden});
  memory.delta = workspace.take(s.compute(), {s.shard_rows, s.hidden});
  memory.rope = workspace.take(DType::fp32, {s.positions, s.attention.head_dim});
  memory.shared = LayerActivations::take_shared(workspace, s);
  if (!s.split_backward) memory.gradients = LayerGradients::take(workspace, s);
  memory.scratch = LayerScratch::take(workspace, s);
  if (layout.last_stage) {
    memory.final_sum = workspace.take(s.compute(), {s.shard_rows, s.hidden});
    memory.final_normed = workspace.take(s.compute(), {s.shard_rows, s.hidden});
    memory.final_rstd = workspace.take(DType::fp32, {s.shard_rows});
    memory.head =
        LossHeadBuffers::take(workspace, s.compute(), s.rows, s.hidden, s.vocabulary, s.tp, s.logits_bytes);
  }
  return memory;
}

}  // namespace llama3d
