#pragma once
// AdamW with its state sharded over the data-parallel group (ZeRO-1, Rajbhandari et al., 2020): of every
// parameter group each rank updates its slice.

#include <memory>
#include <vector>

#include "comm/communicator.hpp"
#include "compute/kernels.hpp"
#include "optim/offloaded_update.hpp"
#include "optim/optimizer_state.hpp"
#include "optim/resident_store.hpp"
#include "optim/step_ring.hpp"

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
                       const ModelStateMemory& memory, ResidentParameterStore& store, Device& device,
                       Stream& stream, GridCommunicators& communicators);

  // A step is begin_step, the micro-batches, then the other three, in this order.

  /// Loss and gradients are zero from here on.
  void begin_step();
  /// Sums the gradients over all ranks that share the weights. Those of every group must have been acquired,
  /// and all but those of norms and tied embeddings been complete.
  void reduce_gradients();
  /// Sums loss, targets and the squared norm over the world and derives from them what the update scales
  /// gradients by. result(step) tells them once the step has ended.
  void clip_gradients(std::int64_t step);
  /// Updates this rank's slices and gathers the parameters. Records `end` when the slices are updated and the
  /// result is where it belongs. Parameters are gathered, and an offloaded state is updated, beside the work
  /// given to the stream next, which acquires them from the store.
  void update(std::int64_t step, double learning_rate, Event& end);
  /// Of the steps under way, once `end` has passed.
  StepResult result(std::int64_t step) const;

  const std::vector<OwnedSlice>& slices() const { return store_->slices(); }
  const ModelStateMemory& memory() const { return *memory_; }
  /// Gathers every rank's slices into all parameters: after slices were loaded or initialized.
  void gather_parameters();

 private:
  struct HostResult {
    double totals[3];
    float report[2];
    float scale;
  };
  /// Adds what other groups of ranks hold of the same weights: norms over tp, tied embeddings over two
  /// stages.
  void complete_shared_gradients();
  void add_squared_norm();
  void download_result(std::int64_t step);
  AdamWStep adamw_step(std::int64_t step, double learning_rate) const;
  void update_resident(const AdamWStep& step);
  void update_offloaded(const AdamWStep& step);

  const ParameterTable* table_;
  ProcessGrid grid_;
  OptimizerOptions options_;
  const ModelStateMemory* memory_;
  ResidentParameterStore* store_;
  Device* device_;
  Kernels* kernels_;
  Stream* stream_;
  GridCommunicators* communicators_;
  std::vector<std::size_t> order_;                          ///< groups, first needed first
  std::vector<AdamWPiece> updates_;                         ///< of this rank's pieces
  std::vector<std::span<const AdamWPiece>> group_updates_;  ///< the same, of each group
  DeviceMemory host_;                                       ///< what results_ point into
  StepRing<HostResult*> results_;
  std::unique_ptr<OffloadedUpdate> offloaded_;  ///< or none
};

}  // namespace llama3d
