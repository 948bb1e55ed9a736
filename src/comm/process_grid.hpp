#pragma once
// Which rank does what: arithmetic on values, no MPI here.

#include <string>
#include <vector>

namespace llama3d {

/// Sizes of the three ways of splitting the work.
struct GridShape {
  int tp = 1;  ///< tensor parallel: every layer split over tp neighbouring ranks
  int pp = 1;  ///< pipeline parallel: layers split into pp stages
  int dp = 1;  ///< data parallel: batch split over dp replicas

  int world() const { return tp * pp * dp; }
  bool operator==(const GridShape&) const = default;
  /// "TP 2 x PP 2 x DP 2".
  std::string to_string() const;
};

struct GridCoordinate {
  int tp = 0, pp = 0, dp = 0;
  bool operator==(const GridCoordinate&) const = default;
};

/// A rank's place in the grid: world rank = (pp * DP + dp) * TP + tp, so tensor-parallel neighbours share a
/// node.
class ProcessGrid {
 public:
  /// Throws ContractViolation unless 0 <= rank < shape.world().
  ProcessGrid(GridShape shape, int rank);
  /// Derives DP from the world size. Throws ConfigurationError when tp * pp does not divide it.
  static ProcessGrid derive(int world_size, int tp_size, int pp_size, int rank);

  const GridShape& shape() const { return shape_; }
  const GridCoordinate& coordinate() const { return coordinate_; }
  int rank() const { return rank_of(coordinate_); }
  int rank_of(GridCoordinate coordinate) const;

  /// World ranks of this rank's groups, in order of their coordinate.
  std::vector<int> tp_group() const;
  std::vector<int> pp_group() const;
  std::vector<int> dp_group() const;

  bool first_stage() const { return coordinate_.pp == 0; }
  bool last_stage() const { return coordinate_.pp == shape_.pp - 1; }

 private:
  GridShape shape_;
  GridCoordinate coordinate_;
};

}  // namespace llama3d
