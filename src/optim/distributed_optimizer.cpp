#include "optim/distributed_optimizer.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/numbers.hpp"
#include "base/philox.hpp"
#include "comm/labels.hpp"

namespace llama3d {
namespace {

struct HostResult {
  double totals[3];
  float report[2];
  float scale;
};

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
                                           Device& device, Stream& stream, GridCommunicators& communicators)
    : table_(&table),
      grid_(grid),
      options_(options),
      memory_(&memory),
      device_(&device),
      kernels_(&device.kernels()),
      stream_(&stream),
      communicators_(&communicators),
      slices_(owned_slices(table, grid.shape().dp, grid.coordinate().dp)),
      order_(order_of_use(table)),
      group_updates_(slices_.size()),
      reductions_(slices_.size()),
      gathers_(slices_.size()),
      prepared_(slices_.size(), false),
      reduced_(slices_.size(), false),
      host_(device.allocate_host(2 * sizeof(HostResult))) {
  std::vector<std::size_t> pieces(slices_.size(), 0);  // of each group
  for (const OwnedPiece& piece : owned_pieces(table, slices_, grid.coordinate())) {
    updates_.push_back(update_of(piece, options));
    ++pieces[static_cast<std::size_t>(piece.group)];
  }
  // Pieces come in the order of groups.
  std::size_t first = 0;
  for (std::size_t group = 0; group < pieces.size(); first += pieces[group++])
    group_updates_[group] = std::span<const AdamWPiece>(updates_).subspan(first, pieces[group]);
  if (!memory.slots.empty())
    offloaded_ = std::make_unique<OffloadedUpdate>(slices_, order_, updates_, memory, device);
}

void DistributedOptimizer::begin_step() {
  std::fill(prepared_.begin(), prepared_.end(), false);
  std::fill(reduced_.begin(), reduced_.end(), false);
  kernels_->fill_zero(memory_->totals, *stream_);
  if (offloaded_) offloaded_->prefetch();
  prepare(GroupKind::norms, -1);
}

void DistributedOptimizer::prepare(GroupKind kind, std::int64_t layer) {
  const auto& groups = table_->groups();
  for (std::size_t i = 0; i < groups.size(); ++i)
    if (groups[i].kind == kind && groups[i].layer == layer) prepare(i);
}

void DistributedOptimizer::prepare(std::size_t group) {
  LLAMA3D_EXPECT(!prepared_[group], "group {} prepared twice in a step", group);
  if (offloaded_) offloaded_->wait_for(group, *stream_);
  if (const WorkHandle gather = std::exchange(gathers_[group], nullptr)) gather->wait(*stream_);
  const ParameterGroup& range = table_->groups()[group];
  kernels_->fill_zero(memory_->gradients.slice(range.begin, range.end), *stream_);
  prepared_[group] = true;
}

void DistributedOptimizer::gradients_ready(GroupKind kind, std::int64_t layer) {
  const auto& groups = table_->groups();
  for (std::size_t i = 0; i < groups.size(); ++i)
    if (groups[i].kind == kind && groups[i].layer == layer && !groups[i].tied) reduce_scatter(i);
}

void DistributedOptimizer::reduce_scatter(std::size_t group) {
  LLAMA3D_EXPECT(prepared_[group] && !reduced_[group], "gradients of group {} reduced twice, or never begun",
                 group);
  const ParameterGroup& range = table_->groups()[group];
  reductions_[group] = communicators_->dp->reduce_scatter(memory_->gradients.slice(range.begin, range.end),
                                                          owned_gradient(slices_[group]),
                                                          labels::dp_reduce_gradients, *stream_);
  reduced_[group] = true;
}

void DistributedOptimizer::complete_shared_gradients() {
  const auto& groups = table_->groups();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (reduced_[i]) continue;
    const ParameterGroup& group = groups[i];
    LLAMA3D_EXPECT(group.tp_replicated || group.tied, "gradients of group {} never became ready", i);
    const Tensor gradients = memory_->gradients.slice(group.begin, group.end);
    if (group.tp_replicated)
      communicators_->tp->all_reduce(gradients, ReduceOperation::sum, labels::tp_norm_gradients, *stream_)
          ->wait(*stream_);
    if (group.tied)
      communicators_->embedding
          ->all_reduce(gradients, ReduceOperation::sum, labels::pp_tied_embedding, *stream_)
          ->wait(*stream_);
    reduce_scatter(i);
  }
}

void DistributedOptimizer::add_squared_norm() {
  // What several ranks hold counts once: norms on the first tp rank, tied embeddings on the first stage.
  const bool first_of_tp = grid_.coordinate().tp == 0;
  for (const OwnedSlice& slice : slices_) {
    const ParameterGroup& group = table_->groups()[static_cast<std::size_t>(slice.group)];
    if (group.tied_copy || (group.tp_replicated && !first_of_tp)) continue;
    kernels_->squared_norm(owned_gradient(slice), memory_->totals.slice(0, 1), *stream_);
  }
  // Every tp rank of the last stage knows the same losses.
  if (!first_of_tp) kernels_->fill_zero(memory_->loss_totals(), *stream_);
}

void DistributedOptimizer::finish_step(std::int64_t step, double learning_rate, Event& end) {
  complete_shared_gradients();
  for (auto& reduction : reductions_) std::exchange(reduction, nullptr)->wait(*stream_);
  add_squared_norm();
  sum_totals();
  download_result(step);
  const AdamWStep adamw{.learning_rate = static_cast<float>(learning_rate),
                        .beta1 = static_cast<float>(options_.beta1),
                        .beta2 = static_cast<float>(options_.beta2),
                        .epsilon = static_cast<float>(options_.epsilon),
                        .step = step};
  if (offloaded_)
    update_offloaded(adamw);
  else
    update(adamw);
  // A host has nothing to do meanwhile.
  if (!device_->asynchronous()) wait_for_parameters();
  (offloaded_ ? offloaded_->stream() : *stream_).record(end);
}

void DistributedOptimizer::download_result(std::int64_t step) {
  HostResult* host = static_cast<HostResult*>(host_.get()) + step % 2;
  device_->download(host->totals, memory_->totals, *stream_);
  device_->download(host->report, memory_->report, *stream_);
  device_->download(&host->scale, memory_->scale, *stream_);
}

StepResult DistributedOptimizer::result(std::int64_t step) const {
  const HostResult* host = static_cast<const HostResult*>(host_.get()) + step % 2;
  return {.loss = unsigned_nan(host->report[0]),
          .gradient_norm = unsigned_nan(host->report[1]),
          .targets = host->totals[2],
          .skipped = host->scale == 0};
}

void DistributedOptimizer::sum_totals() {
  communicators_->world->all_reduce(memory_->totals, ReduceOperation::sum, labels::world_totals, *stream_)
      ->wait(*stream_);
  kernels_->gradient_scale(memory_->totals, static_cast<float>(options_.gradient_clip), memory_->scale,
                           memory_->report, *stream_);
}

void DistributedOptimizer::update(const AdamWStep& step) {
  const auto update = [&](std::span<const AdamWPiece> pieces) {
    const AdamWState& state = memory_->adamw;
    kernels_->adamw(step, pieces, memory_->parameters, state.master, memory_->gradients, state.exp_avg,
                    state.exp_avg_sq, memory_->scale, *stream_);
  };
  if (grid_.shape().dp == 1) return update(updates_);
  // What the next forward pass needs first is on its way while the rest is updated.
  for (const std::size_t group : order_) {
    update(group_updates_[group]);
    gathers_[group] = gather(group, *stream_);
  }
}

void DistributedOptimizer::update_offloaded(const AdamWStep& step) {
  offloaded_->begin(*stream_);
  for (std::size_t i = 0; i < slices_.size(); ++i) {
    const std::size_t group = offloaded_->update_next_group(step);
    offloaded_->complete(group);
    gathers_[group] = gather(group, offloaded_->stream());
  }
  offloaded_->wait_for_downloads();
}

WorkHandle DistributedOptimizer::gather(std::size_t group, Stream& stream) {
  const OwnedSlice& slice = slices_[group];
  const ParameterGroup& range = table_->groups()[group];
  return communicators_->dp->all_gather(memory_->parameters.slice(slice.begin, slice.end),
                                        memory_->parameters.slice(range.begin, range.end),
                                        labels::dp_gather_parameters, stream);
}

void DistributedOptimizer::gather_parameters() {
  for (const std::size_t group : order_) gathers_[group] = gather(group, *stream_);
  wait_for_parameters();
}

void DistributedOptimizer::wait_for_parameters() {
  for (WorkHandle& work : gathers_)
    if (const WorkHandle gather = std::exchange(work, nullptr)) gather->wait(*stream_);
}

}  // namespace llama3d
