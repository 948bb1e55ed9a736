#include "optim/distributed_optimizer.hpp"

#include <algorithm>
#include <numeric>

#include "base/numbers.hpp"
#include "base/philox.hpp"
#include "comm/labels.hpp"

namespace llama3d {
namespace {

AdamWPiece update_of(const OwnedPiece& piece, const OptimizerOptions& options) {
  const Parameter& p = *piece.parameter;
  return {.elements = piece.elements,
          .parameter_begin = piece.arena_begin,
          .state_begin = piece.state_begin,
          .weight_decay = piece.decays ? static_cast<float>(options.weight_decay) : 0.0f,
          .rounding_key = philox_key(options.seed, p.name),
          .shard_begin = piece.shard_begin(),
          .columns = p.columns,
          .first_row = p.first_row,
          .first_column = p.first_column,
          .global_columns = p.global_columns()};
}

/// The groups of a table, first needed first: norms are one group that every layer needs.
std::vector<std::size_t> order_of_use(const ParameterTable& table) {
  std::vector<std::size_t> order(table.groups().size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_partition(order.begin(), order.end(),
                        [&](std::size_t g) { return table.groups()[g].kind == GroupKind::norms; });
  return order;
}

}  // namespace

DistributedOptimizer::DistributedOptimizer(const ParameterTable& table, const ProcessGrid& grid,
                                           const OptimizerOptions& options, const ModelStateMemory& memory,
                                           ResidentParameterStore& store, Device& device, Stream& stream,
                                           GridCommunicators& communicators)
    : table_(&table),
      grid_(grid),
      options_(options),
      memory_(&memory),
      store_(&store),
      device_(&device),
      kernels_(&device.kernels()),
      stream_(&stream),
      communicators_(&communicators),
      order_(order_of_use(table)),
      group_updates_(table.groups().size()),
      host_(device.allocate_host(kStepsUnderWay * sizeof(HostResult))) {
  auto* next_result = static_cast<HostResult*>(host_.get());
  for (HostResult*& result : results_) result = next_result++;
  std::vector<std::size_t> pieces(group_updates_.size(), 0);  // of each group
  for (const OwnedPiece& piece : owned_pieces(table, slices(), grid)) {
    updates_.push_back(update_of(piece, options));
    ++pieces[static_cast<std::size_t>(piece.group)];
  }
  // Pieces come in the order of groups.
  std::size_t first = 0;
  for (std::size_t group = 0; group < pieces.size(); first += pieces[group++])
    group_updates_[group] = std::span<const AdamWPiece>(updates_).subspan(first, pieces[group]);
  if (!memory.slots.empty())
    offloaded_ = std::make_unique<OffloadedUpdate>(slices(), order_, updates_, memory, device);
}

void DistributedOptimizer::begin_step() {
  store_->begin_step();
  kernels_->fill_zero(memory_->totals, *stream_);
  if (offloaded_) offloaded_->prefetch();
}

void DistributedOptimizer::reduce_gradients() {
  complete_shared_gradients();
  store_->wait_for_reductions();
}

void DistributedOptimizer::complete_shared_gradients() {
  const auto& groups = table_->groups();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (store_->reduced(i)) continue;
    const ParameterGroup& group = groups[i];
    LLAMA3D_EXPECT(group.tp_replicated || group.tied, "gradients of group {} never became complete", i);
    const Tensor gradients = table_->group_of(memory_->gradients, i);
    if (group.tp_replicated)
      (*communicators_)[Axis::tensor]
          .all_reduce(gradients, ReduceOperation::sum, labels::tp_norm_gradients, *stream_)
          ->wait(*stream_);
    if (group.tied)
      communicators_->embedding
          ->all_reduce(gradients, ReduceOperation::sum, labels::pp_tied_embedding, *stream_)
          ->wait(*stream_);
    store_->reduce(i);
  }
}

void DistributedOptimizer::clip_gradients(std::int64_t step) {
  add_squared_norm();
  communicators_->world->all_reduce(memory_->totals, ReduceOperation::sum, labels::world_totals, *stream_)
      ->wait(*stream_);
  kernels_->gradient_scale(memory_->totals, static_cast<float>(options_.gradient_clip), memory_->scale,
                           memory_->report, *stream_);
  download_result(step);
}

void DistributedOptimizer::add_squared_norm() {
  // What several ranks hold counts once: norms on the first tp rank, tied embeddings on the first stage.
  const bool first_of_tp = grid_.rank(Axis::tensor) == 0;
  for (const OwnedSlice& slice : slices()) {
    const ParameterGroup& group = table_->groups()[static_cast<std::size_t>(slice.group)];
    if (group.tied_copy || (group.tp_replicated && !first_of_tp)) continue;
    kernels_->squared_norm(memory_->gradients.slice(slice.begin, slice.end), memory_->totals.slice(0, 1),
                           *stream_);
  }
  // Every tp rank of the last stage knows the same losses.
  if (!first_of_tp) kernels_->fill_zero(memory_->loss_totals(), *stream_);
}

void DistributedOptimizer::download_result(std::int64_t step) {
  HostResult* host = results_[step];
  device_->download(host->totals, memory_->totals, *stream_);
  device_->download(host->report, memory_->report, *stream_);
  device_->download(&host->scale, memory_->scale, *stream_);
}

StepResult DistributedOptimizer::result(std::int64_t step) const {
  const HostResult* host = results_[step];
  return {.loss = unsigned_nan(host->report[0]),
          .gradient_norm = unsigned_nan(host->report[1]),
          .targets = host->totals[2],
          .skipped = host->scale == 0};
}

AdamWStep DistributedOptimizer::adamw_step(std::int64_t step, double learning_rate) const {
  return {.learning_rate = static_cast<float>(learning_rate),
          .beta1 = static_cast<float>(options_.beta1),
          .beta2 = static_cast<float>(options_.beta2),
          .epsilon = static_cast<float>(options_.epsilon),
          .step = step};
}

void DistributedOptimizer::update(std::int64_t step, double learning_rate, Event& end) {
  const AdamWStep adamw = adamw_step(step, learning_rate);
  if (offloaded_)
    update_offloaded(adamw);
  else
    update_resident(adamw);
  // A host has nothing to do meanwhile.
  if (!device_->asynchronous()) store_->wait_for_parameters();
  (offloaded_ ? offloaded_->stream() : *stream_).record(end);
}

void DistributedOptimizer::update_resident(const AdamWStep& step) {
  const auto update = [&](std::span<const AdamWPiece> pieces) {
    const AdamWState& state = memory_->adamw;
    kernels_->adamw(step, pieces, memory_->parameters, state.master, memory_->gradients, state.exp_avg,
                    state.exp_avg_sq, memory_->scale, *stream_);
  };
  if (grid_.size(Axis::data) == 1) return update(updates_);
  // What the next forward pass needs first is on its way while the rest is updated.
  for (const std::size_t group : order_) {
    update(group_updates_[group]);
    store_->gather(group, *stream_);
  }
}

void DistributedOptimizer::update_offloaded(const AdamWStep& step) {
  offloaded_->begin(*stream_);
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const std::size_t group = offloaded_->update_next_group(step);
    const Event& updated = offloaded_->complete(group);
    store_->gather(group, offloaded_->stream(), &updated);
  }
  offloaded_->wait_for_downloads();
}

void DistributedOptimizer::gather_parameters() {
  for (const std::size_t group : order_) store_->gather(group, *stream_);
  store_->wait_for_parameters();
}

}  // namespace llama3d
