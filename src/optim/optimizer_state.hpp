#pragma once
// What a rank keeps of the model and of AdamW: which slices of the parameters it updates, and the memory they
// take.

#include <vector>

#include "compute/arena.hpp"
#include "model/parameter_table.hpp"

namespace llama3d {

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
  std::int64_t group = 0;        ///< index into ParameterTable::groups()
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
                                     const ProcessGrid& grid);

/// How a rank keeps what its optimizer needs. bf16 moments, and bf16 parameters without master weights, round
/// stochastically.
struct StateOptions {
  DType gradient = DType::fp32;
  DType moments = DType::fp32;
  bool master = true;    ///< fp32 master weights; fp32 parameters need none and have none
  bool offload = false;  ///< master weights and moments stay in host memory
  /// Elements of them brought to the device at once; these are enough for transfers at full speed.
  std::int64_t offload_chunk = std::int64_t{16} << 20;
};

/// AdamW's state of a run of elements.
struct AdamWState {
  Tensor master;               ///< fp32, or empty
  Tensor exp_avg, exp_avg_sq;  ///< dtype of the moments

  static AdamWState take(Arena& arena, std::int64_t elements, DType compute, const StateOptions& options);
  AdamWState slice(std::int64_t begin, std::int64_t end) const;
};

/// The arenas of a rank's model and optimizer, by one code for the plan and for the run.
struct ModelStateMemory {
  Tensor parameters;              ///< (arena elements) compute
  Tensor gradients;               ///< (arena elements) gradient dtype
  AdamWState adamw;               ///< (owned elements), in host memory when offloaded
  std::vector<AdamWState> slots;  ///< on the device, for the chunks of an offloaded state under way
  Tensor totals;                  ///< (3) fp64: squared gradient norm, sum of losses, number of targets
  Tensor scale;                   ///< (1) fp32
  Tensor report;                  ///< (2) fp32: mean loss, gradient norm

  struct Arenas {
    Arena &parameters, &gradients, &optimizer, &host;
  };
  static ModelStateMemory take(const Arenas& arenas, const ParameterTable& table, const GridShape& grid,
                               DType compute, const StateOptions& options);
  /// What forward passes need of it: parameters and totals.
  static ModelStateMemory take_weights(Arena& parameters, Arena& workspace, const ParameterTable& table,
                                       DType compute);
  /// Where a stage adds loss and targets: (2) fp64.
  Tensor loss_totals() const { return totals.slice(1, 3); }
};

}  // namespace llama3d
