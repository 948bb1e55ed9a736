#pragma once
// The values of a rank's model and optimizer slices: drawn at random, saved to and loaded from checkpoints,
// all in global coordinates.

#include <functional>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "optim/distributed_optimizer.hpp"

namespace llama3d {

/// The piece in the global tensor, in memory order.
std::vector<Rectangle> rectangles_of(const OwnedPiece& piece);

class CheckpointContents;
class WeightSource;

class ModelState {
 public:
  /// `memory`, `device` and `stream` must outlive the state.
  ModelState(const ParameterTable& table, const std::vector<OwnedSlice>& slices, const ProcessGrid& grid,
             const ModelStateMemory& memory, Device& device, Stream& stream);

  /// Initial weights: normal deviates of `standard_deviation` for matrices, ones for norms, each a function
  /// of seed, parameter name and global element; moments zero. Fills this rank's slices: gather the
  /// parameters afterwards.
  void initialize(std::uint64_t seed, double standard_deviation);

  /// Writes this rank's pieces, as fp32: /model/NAME from the master weights, /optimizer/exp_avg/NAME and
  /// /optimizer/exp_avg_sq/NAME.
  void save(RankFileWriter& file);
  /// Reads this rank's slices of weights and moments back. Gather the parameters afterwards. The checkpoint
  /// must hold the model's tensors: CheckpointContents::expect_run_of().
  void load_states(const CheckpointContents& checkpoint);
  /// Weights only; moments zero. The source must hold the model's tensors: WeightSource::check().
  void load_weights(const WeightSource& source);

 private:
  /// Weights that updates accumulate in: master weights, or the parameters themselves.
  Tensor weights(const OwnedPiece& piece) const;
  Tensor moment(const Tensor& arena, const OwnedPiece& piece) const;
  void clear();
  /// Parameters of this rank's slices from the master weights, where there are any.
  void round_master();
  using ReadRectangle = std::function<void(const Rectangle& rectangle, void* out, DType out_dtype)>;
  void read(const ReadRectangle& read_rectangle, const OwnedPiece& piece, const Tensor& destination);

  const ParameterTable* table_;
  std::vector<OwnedSlice> slices_;
  std::vector<OwnedPiece> pieces_;
  const ModelStateMemory* memory_;
  Device* device_;
  Kernels* kernels_;
  Stream* stream_;
  DeviceMemory staging_;  ///< host memory of the largest piece, fp32
};

}  // namespace llama3d
