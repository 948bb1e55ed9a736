#include "comm/process_grid.hpp"

#include <cstdint>

#include "base/error.hpp"

namespace llama3d {

int GridShape::size(Axis axis) const {
  switch (axis) {
    case Axis::tensor: return tp;
    case Axis::context: return cp;
    case Axis::pipeline: return pp;
    case Axis::data: return dp;
  }
  return 0;
}

int GridShape::world() const {
  return tp * cp * pp * dp;
}

std::string GridShape::to_string() const {
  const std::string context = cp == 1 ? "" : fmt::format(" x CP {}", cp);
  return fmt::format("TP {}{} x PP {} x DP {}", tp, context, pp, dp);
}

ProcessGrid::ProcessGrid(GridShape shape, int rank) : shape_(shape), rank_(rank) {
  for (const Axis axis : all_axes) LLAMA3D_EXPECT(size(axis) >= 1, "grid {}", shape.to_string());
  LLAMA3D_EXPECT(0 <= rank && rank < shape.world(), "rank {} of grid {}", rank, shape.to_string());
}

ProcessGrid ProcessGrid::derive(int world_size, GridShape replica, int rank) {
  if (replica.tp < 1) throw ConfigurationError(fmt::format("`tp_size {}` (must be 1 or more)", replica.tp));
  if (replica.pp < 1) throw ConfigurationError(fmt::format("`pp_size {}` (must be 1 or more)", replica.pp));
  LLAMA3D_EXPECT(replica.cp >= 1, "CP {}", replica.cp);
  const std::int64_t replica_ranks = std::int64_t{replica.tp} * replica.cp * replica.pp;
  if (world_size % replica_ranks != 0)
    throw ConfigurationError(fmt::format(
        "`tp_size {}` x `pp_size {}` needs a multiple of {} ranks (this job has {}); start that many "
        "ranks or choose sizes whose product divides {}",
        replica.tp, replica.pp, replica_ranks, world_size, world_size));
  replica.dp = static_cast<int>(world_size / replica_ranks);
  return ProcessGrid(replica, rank);
}

int ProcessGrid::stride(Axis axis) const {
  int stride = 1;
  for (auto inner = all_axes.begin(); *inner != axis; ++inner) stride *= size(*inner);
  return stride;
}

int ProcessGrid::rank(Axis axis) const {
  return rank_ / stride(axis) % size(axis);
}

int ProcessGrid::member(Axis axis, int rank) const {
  LLAMA3D_EXPECT(0 <= rank && rank < size(axis), "{} rank {} of grid {}", name_of(axis), rank,
                 shape_.to_string());
  return rank_ + (rank - this->rank(axis)) * stride(axis);
}

std::vector<int> ProcessGrid::group(Axis axis) const {
  std::vector<int> ranks;
  for (int rank = 0; rank < size(axis); ++rank) ranks.push_back(member(axis, rank));
  return ranks;
}

}  // namespace llama3d
