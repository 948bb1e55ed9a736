#pragma once
// AdamW with its state sharded over the data-parallel group (ZeRO-1, Rajbhandari et al., 2020): gradients
// leave by reduce-scatter group by group, each rank updates its slice of every group, parameters come back by
// all-gather.

#include <memory>
#include <vector>

#include "comm/communicator.hpp"
#include "compute/kernels.hpp"
#include "optim/offloaded_update.hpp"
#include "optim/optimizer_state.hpp"

namespace llama3d {

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;
  double gradient_clip = 1.0;  ///< largest global norm; 0 does not clip
  std::uint64_t seed = 0;      ///< of stochastic rounding
};

/// What a step did.
struct StepResult {
  double loss = 0;           ///< mean over the global batch's targets
  double gradient_norm = 0;  ///< before clipping
  double targets = 0;
  bool skipped = false;  ///< loss or gradients were not finite: nothing was updated
};

class DistributedOptimizer {
 public:
  /// All references must outlive the optimizer.
  DistributedOptimizer(const ParameterTable& table, const ProcessGrid& grid, const OptimizerOptions& options,
                       const ModelStateMemory& memory, Device& device, Stream& stream,
                       GridCommunicators& communicators);

  /// Before the first micro-batch of a step.
  void begin_step();
  /// Before a group is first used in a step: its parameters are those of the last update from here on, its
  /// gradients zero.
  void prepare(GroupKind kind, std::int64_t layer);
  /// The gradients of a group are complete on this rank: starts their reduce-scatter, unless others have to
  /// be added first.
  void gradients_ready(GroupKind kind, std::int64_t layer);
  /// Reduces what is left, clips, updates this rank's slices and gathers the parameters. Every group must be
  /// ready. Records `end` when this rank's slices are updated and the result is where it belongs. Parameters
  /// are gathered, and an offloaded state is updated, beside the work given to the stream next, which may use
  /// a group once it is prepared again.
  void finish_step(std::int64_t step, double learning_rate, Event& end);
  /// What finish_step did, of the last two steps, once `end` has passed.
  StepResult result(std::int64_t step) const;

  const std::vector<OwnedSlice>& slices() const { return slices_; }
  const ModelStateMemory& memory() const { return *memory_; }
  /// Gathers every rank's slices into all parameters: after slices were loaded or initialized.
  void gather_parameters();
  /// Later work on the stream may use all parameters.
  void wait_for_parameters();
  /// Mean gradients of this rank's slices, before clipping, valid from finish_step to the next
  /// prepare: scale by 1 / targets.
  Tensor owned_gradient(const OwnedSlice& slice) const {
    return memory_->gradients.slice(slice.begin, slice.end);
  }

 private:
  void prepare(std::size_t group);
  void reduce_scatter(std::size_t group);
  /// Adds what other groups of ranks hold of the same weights: norms over tp, tied embeddings over two
  /// stages.
  void complete_shared_gradients();
  void add_squared_norm();
  /// Sums loss, targets and norm over the world and derives the gradients' scale.
  void sum_totals();
  void download_result(std::int64_t step);
  void update(const AdamWStep& step);
  void update_offloaded(const AdamWStep& step);
  WorkHandle gather(std::size_t group, Stream& stream);

  const ParameterTable* table_;
  ProcessGrid grid_;
  OptimizerOptions options_;
  const ModelStateMemory* memory_;
  Device* device_;
  Kernels* kernels_;
  Stream* stream_;
  GridCommunicators* communicators_;
  std::vector<OwnedSlice> slices_;
  std::vector<std::size_t> order_;                          ///< groups, first needed first
  std::vector<AdamWPiece> updates_;                         ///< of this rank's pieces
  std::vector<std::span<const AdamWPiece>> group_updates_;  ///< the same, of each group
  std::vector<WorkHandle> reductions_, gathers_;            ///< under way, one a group
  std::vector<bool> prepared_, reduced_;
  DeviceMemory host_;                           ///< results of an odd and an even step
  std::unique_ptr<OffloadedUpdate> offloaded_;  ///< or none
};

}  // namespace llama3d
