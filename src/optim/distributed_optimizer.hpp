#pragma once
// AdamW with its state sharded over the data-parallel group (ZeRO-1, Rajbhandari et al., 2020): gradients
// leave by reduce-scatter group by group, each rank updates its slice of every group, parameters come back by
// all-gather.

#include <vector>

#include "compute/arena.hpp"
#include "compute/kernels.hpp"
#include "model/parameter_table.hpp"
#include "mpi/communicator.hpp"

namespace llama3d {

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;
  double gradient_clip = 1.0;  ///< largest global norm; 0 does not clip
  std::uint64_t seed = 0;      ///< of stochastic rounding
};

/// This rank's slice of one group, as elements of the parameter arena and of the state arenas.
struct OwnedSlice {
  std::int64_t group = 0;  ///< index into ParameterTable::groups()
  std::int64_t begin = 0, end = 0;
  std::int64_t state_begin = 0;
  std::int64_t elements() const { return end - begin; }
};

/// Slice `dp_rank` of every group.
std::vector<OwnedSlice> owned_slices(const ParameterTable& table, int dp_size, int dp_rank);

/// The part of one parameter that lies in this rank's slices; paddings lie in none.
struct OwnedPiece {
  const Parameter* parameter = nullptr;
  std::int64_t arena_begin = 0;  ///< first element in the parameter arena
  std::int64_t state_begin = 0;  ///< first element in the arenas of master weights and moments
  std::int64_t elements = 0;
  bool decays = true;  ///< weight decay applies
  bool writes = true;  ///< this rank is the one that saves it
  /// First element within the parameter's shard.
  std::int64_t shard_begin() const { return arena_begin - parameter->offset; }
};

/// In the order of slices and, within them, of the arena. Pieces point into the table.
std::vector<OwnedPiece> owned_pieces(const ParameterTable& table, const std::vector<OwnedSlice>& slices,
                                     const GridCoordinate& coordinate);

/// What a rank's model and optimizer keep beside the parameters. bf16 moments, and bf16 parameters without
/// master weights, round stochastically.
struct StateDTypes {
  DType gradient = DType::fp32;
  DType moments = DType::fp32;
  bool master = true;  ///< fp32 master weights; fp32 parameters need none and have none
};

/// The arenas of a rank's model and optimizer, by one code for the plan and for the run.
struct ModelStateMemory {
  Tensor parameters;           ///< (arena elements) compute
  Tensor gradients;            ///< (arena elements) gradient dtype
  Tensor master;               ///< (owned elements) fp32, or empty
  Tensor exp_avg, exp_avg_sq;  ///< (owned elements) dtype of the moments
  Tensor totals;               ///< (3) fp64: squared gradient norm, sum of losses, number of targets
  Tensor scale;                ///< (1) fp32
  Tensor report;               ///< (2) fp32: mean loss, gradient norm

  struct Arenas {
    Arena &parameters, &gradients, &optimizer;
  };
  static ModelStateMemory take(const Arenas& arenas, const ParameterTable& table, const GridShape& grid,
                               DType compute, const StateDTypes& states);
  /// Where a stage adds loss and targets: (2) fp64.
  Tensor loss_totals() const { return totals.slice(1, 3); }
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

  /// Zeroes gradients and totals: before the first micro-batch of a step.
  void begin_step();
  /// The gradients of a group are complete on this rank: starts their reduce-scatter, unless others have to
  /// be added first.
  void gradients_ready(GroupKind kind, std::int64_t layer);
  /// Reduces what is left, clips, updates this rank's slices and gathers the parameters. Every group must be
  /// ready. The result is on its way to the host when the stream's work so far is done.
  void finish_step(std::int64_t step, double learning_rate);
  /// What finish_step did, of the last two steps; the stream must have passed it.
  StepResult result(std::int64_t step) const;

  const std::vector<OwnedSlice>& slices() const { return slices_; }
  const ModelStateMemory& memory() const { return *memory_; }
  /// Gathers every rank's slices into all parameters: after slices were loaded or initialized.
  void gather_parameters();
  /// Mean gradients of this rank's slices, before clipping, valid after finish_step: scale by 1 / targets.
  Tensor owned_gradient(const OwnedSlice& slice) const {
    return memory_->gradients.slice(slice.begin, slice.end);
  }

 private:
  void reduce_scatter(std::size_t group);
  /// Adds what other groups of ranks hold of the same weights: norms over tp, tied embeddings over two
  /// stages.
  void complete_shared_gradients();
  void add_squared_norm();
  /// Sums loss, targets and norm over the world and derives the gradients' scale.
  void sum_totals();
  void download_result(std::int64_t step);
  void update(std::int64_t step, double learning_rate);

  const ParameterTable* table_;
  ProcessGrid grid_;
  OptimizerOptions options_;
  const ModelStateMemory* memory_;
  Device* device_;
  Kernels* kernels_;
  Stream* stream_;
  GridCommunicators* communicators_;
  std::vector<OwnedSlice> slices_;
  std::vector<AdamWPiece> updates_;     ///< of this rank's pieces
  std::vector<WorkHandle> reductions_;  ///< one a group
  std::vector<bool> reduced_;
  DeviceMemory host_;  ///< results of an odd and an even step
};

}  // namespace llama3d
