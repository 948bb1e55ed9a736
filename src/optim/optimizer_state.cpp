#include "optim/optimizer_state.hpp"

#include <algorithm>

#include "optim/offloaded_update.hpp"

namespace llama3d {

std::vector<OwnedSlice> owned_slices(const ParameterTable& table, int dp_size, int dp_rank) {
  std::vector<OwnedSlice> slices;
  std::int64_t state = 0;
  for (std::size_t i = 0; i < table.groups().size(); ++i) {
    const ParameterGroup& group = table.groups()[i];
    const std::int64_t each = group.elements() / dp_size;
    const std::int64_t begin = group.begin + dp_rank * each;
    slices.push_back({static_cast<std::int64_t>(i), begin, begin + each, state});
    state += each;
  }
  return slices;
}

std::vector<OwnedPiece> owned_pieces(const ParameterTable& table, const std::vector<OwnedSlice>& slices,
                                     const ProcessGrid& grid) {
  std::vector<OwnedPiece> pieces;
  for (const OwnedSlice& slice : slices) {
    const ParameterGroup& group = table.groups()[static_cast<std::size_t>(slice.group)];
    for (const Parameter& p : table.parameters()) {
      const std::int64_t begin = std::max(slice.begin, p.offset);
      const std::int64_t end = std::min(slice.end, p.offset + p.existing_rows * p.columns);
      if (begin >= end) continue;
      pieces.push_back({.parameter = &p,
                        .group = slice.group,
                        .arena_begin = begin,
                        .state_begin = slice.state_begin + begin - slice.begin,
                        .elements = end - begin,
                        .decays = p.decays(),
                        .writes = !p.tied_copy && (!group.tp_replicated || grid.rank(Axis::tensor) == 0)});
    }
  }
  return pieces;
}

AdamWState AdamWState::take(Arena& arena, std::int64_t elements, DType compute, const StateOptions& options) {
  AdamWState state;
  if (compute != DType::fp32 && options.master) state.master = arena.take(DType::fp32, {elements});
  state.exp_avg = arena.take(options.moments, {elements});
  state.exp_avg_sq = arena.take(options.moments, {elements});
  return state;
}

AdamWState AdamWState::slice(std::int64_t begin, std::int64_t end) const {
  return {master ? master.slice(begin, end) : Tensor(), exp_avg.slice(begin, end),
          exp_avg_sq.slice(begin, end)};
}

namespace {

std::int64_t largest_slice(const ParameterTable& table, int dp_size) {
  std::int64_t largest = 0;
  for (const ParameterGroup& group : table.groups()) largest = std::max(largest, group.elements() / dp_size);
  return largest;
}

}  // namespace

ModelStateMemory ModelStateMemory::take(const Arenas& arenas, const ParameterTable& table,
                                        const GridShape& grid, DType compute, const StateOptions& options) {
  const int dp_size = grid.size(Axis::data);
  const std::int64_t owned = table.arena_elements() / dp_size;
  ModelStateMemory memory;
  memory.parameters = arenas.parameters.take(compute, {table.arena_elements()});
  memory.gradients = arenas.gradients.take(options.gradient, {table.arena_elements()});
  memory.adamw = AdamWState::take(options.offload ? arenas.host : arenas.optimizer, owned, compute, options);
  if (options.offload)
    for (int slot = 0; slot < OffloadedUpdate::slots; ++slot)
      memory.slots.push_back(AdamWState::take(arenas.optimizer,
                                              std::min(options.offload_chunk, largest_slice(table, dp_size)),
                                              compute, options));
  memory.totals = arenas.optimizer.take(DType::fp64, {3});
  memory.scale = arenas.optimizer.take(DType::fp32, {1});
  memory.report = arenas.optimizer.take(DType::fp32, {2});
  return memory;
}

ModelStateMemory ModelStateMemory::take_weights(Arena& parameters, Arena& workspace,
                                                const ParameterTable& table, DType compute) {
  ModelStateMemory memory;
  memory.parameters = parameters.take(compute, {table.arena_elements()});
  memory.totals = workspace.take(DType::fp64, {3});
  return memory;
}

}  // namespace llama3d
