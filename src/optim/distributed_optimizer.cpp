#include "optim/distributed_optimizer.hpp"

#include <algorithm>
#include <utility>

#include "base/philox.hpp"
#include "mpi/labels.hpp"

namespace llama3d {
namespace {

struct HostResult {
  double totals[3];
  float report[2];
  float scale;
};

}  // namespace

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
                                     const GridCoordinate& coordinate) {
  std::vector<OwnedPiece> pieces;
  for (const OwnedSlice& slice : slices) {
    const ParameterGroup& group = table.groups()[static_cast<std::size_t>(slice.group)];
    for (const Parameter& p : table.parameters()) {
      const std::int64_t begin = std::max(slice.begin, p.offset);
      const std::int64_t end = std::min(slice.end, p.offset + p.existing_rows * p.columns);
      if (begin >= end) continue;
      pieces.push_back({.parameter = &p,
                        .arena_begin = begin,
                        .state_begin = slice.state_begin + begin - slice.begin,
                        .elements = end - begin,
                        .decays = group.decays,
                        .writes = !p.tied_copy && (!group.tp_replicated || coordinate.tp == 0)});
    }
  }
  return pieces;
}

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

}  // namespace

ModelStateMemory ModelStateMemory::take(const Arenas& arenas, const ParameterTable& table,
                                        const GridShape& grid, DType compute, const StateDTypes& states) {
  const std::int64_t owned = table.arena_elements() / grid.dp;
  ModelStateMemory memory;
  memory.parameters = arenas.parameters.take(compute, {table.arena_elements()});
  memory.gradients = arenas.gradients.take(states.gradient, {table.arena_elements()});
  if (compute != DType::fp32 && states.master) memory.master = arenas.optimizer.take(DType::fp32, {owned});
  memory.exp_avg = arenas.optimizer.take(states.moments, {owned});
  memory.exp_avg_sq = arenas.optimizer.take(states.moments, {owned});
  memory.totals = arenas.optimizer.take(DType::fp64, {3});
  memory.scale = arenas.optimizer.take(DType::fp32, {1});
  memory.report = arenas.optimizer.take(DType::fp32, {2});
  return memory;
}

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
      reductions_(slices_.size()),
      reduced_(slices_.size(), false),
      host_(device.allocate_host(2 * sizeof(HostResult))) {
  for (const OwnedPiece& piece : owned_pieces(table, slices_, grid.coordinate()))
    updates_.push_back(update_of(piece, options));
}

void DistributedOptimizer::begin_step() {
  kernels_->fill_zero(memory_->gradients, *stream_);
  kernels_->fill_zero(memory_->totals, *stream_);
  std::fill(reduced_.begin(), reduced_.end(), false);
}

void DistributedOptimizer::gradients_ready(GroupKind kind, std::int64_t layer) {
  const auto& groups = table_->groups();
  for (std::size_t i = 0; i < groups.size(); ++i)
    if (groups[i].kind == kind && groups[i].layer == layer && !groups[i].tied) reduce_scatter(i);
}

void DistributedOptimizer::reduce_scatter(std::size_t group) {
  LLAMA3D_EXPECT(!reduced_[group], "gradients of group {} reduced twice", group);
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

void DistributedOptimizer::finish_step(std::int64_t step, double learning_rate) {
  complete_shared_gradients();
  for (auto& reduction : reductions_) std::exchange(reduction, nullptr)->wait(*stream_);
  add_squared_norm();
  sum_totals();
  update(step, learning_rate);
  gather_parameters();
  download_result(step);
}

void DistributedOptimizer::download_result(std::int64_t step) {
  HostResult* host = static_cast<HostResult*>(host_.get()) + step % 2;
  device_->download(host->totals, memory_->totals, *stream_);
  device_->download(host->report, memory_->report, *stream_);
  device_->download(&host->scale, memory_->scale, *stream_);
}

StepResult DistributedOptimizer::result(std::int64_t step) const {
  const HostResult* host = static_cast<const HostResult*>(host_.get()) + step % 2;
  return {.loss = host->report[0],
          .gradient_norm = host->report[1],
          .targets = host->totals[2],
          .skipped = host->scale == 0};
}

void DistributedOptimizer::sum_totals() {
  communicators_->world->all_reduce(memory_->totals, ReduceOperation::sum, labels::world_totals, *stream_)
      ->wait(*stream_);
  kernels_->gradient_scale(memory_->totals, static_cast<float>(options_.gradient_clip), memory_->scale,
                           memory_->report, *stream_);
}

void DistributedOptimizer::update(std::int64_t step, double learning_rate) {
  AdamWStep adamw;
  adamw.learning_rate = static_cast<float>(learning_rate);
  adamw.beta1 = static_cast<float>(options_.beta1);
  adamw.beta2 = static_cast<float>(options_.beta2);
  adamw.epsilon = static_cast<float>(options_.epsilon);
  adamw.step = step;
  kernels_->adamw(adamw, updates_, memory_->parameters, memory_->master, memory_->gradients, memory_->exp_avg,
                  memory_->exp_avg_sq, memory_->scale, *stream_);
}

void DistributedOptimizer::gather_parameters() {
  std::vector<WorkHandle> gathers;
  for (const OwnedSlice& slice : slices_) {
    const ParameterGroup& group = table_->groups()[static_cast<std::size_t>(slice.group)];
    gathers.push_back(communicators_->dp->all_gather(memory_->parameters.slice(slice.begin, slice.end),
                                                     memory_->parameters.slice(group.begin, group.end),
                                                     labels::dp_gather_parameters, *stream_));
  }
  for (auto& gather : gathers) gather->wait(*stream_);
}

}  // namespace llama3d
