#pragma once
// Which rank does what: arithmetic on values, no MPI here.

#include <string>
#include <vector>

#include "comm/axis.hpp"

namespace llama3d {

/// Sizes of the axes: named where a grid is written down, looked up by size() where it is read.
struct GridShape {
  int tp = 1, pp = 1, dp = 1, cp = 1;

  int size(Axis axis) const;
  int world() const;
  bool operator==(const GridShape&) const = default;
  /// "TP 2 x PP 2 x DP 2", and CP where it is not 1.
  std::string to_string() const;
};

/// A rank's place in the grid: world rank = ((pp * DP + dp) * CP + cp) * TP + tp.
class ProcessGrid {
 public:
  /// Throws ContractViolation unless 0 <= rank < shape.world().
  ProcessGrid(GridShape shape, int rank);
  /// Derives DP from the world size and the other axes of `replica`, which one replica spans. Throws
  /// ConfigurationError when their product does not divide the world size.
  static ProcessGrid derive(int world_size, GridShape replica, int rank);

  const GridShape& shape() const { return shape_; }
  int size(Axis axis) const { return shape_.size(axis); }
  /// In the world.
  int rank() const { return rank_; }
  /// Along one axis: the rank in group(axis).
  int rank(Axis axis) const;
  /// World rank of the member of group(axis) with this rank there. Throws ContractViolation when there is
  /// none.
  int member(Axis axis, int rank) const;

  /// World ranks of those that differ from this rank along one axis only, itself included, in order of that.
  std::vector<int> group(Axis axis) const;
  /// Equal on all ranks of a group and on no other: to split the world by.
  int color(Axis axis) const { return member(axis, 0); }

  bool first_stage() const { return rank(Axis::pipeline) == 0; }
  bool last_stage() const { return rank(Axis::pipeline) == size(Axis::pipeline) - 1; }
  /// First and last stage of a pipeline group have a group of their own, for tied embeddings. Its color is
  /// the pipeline's.
  bool in_embedding_group() const { return size(Axis::pipeline) > 1 && (first_stage() || last_stage()); }

 private:
  /// Between the world ranks of neighbours along an axis.
  int stride(Axis axis) const;

  GridShape shape_;
  int rank_;
};

}  // namespace llama3d
