#include "comm/process_grid.hpp"

#include <cstdint>

#include "base/error.hpp"

namespace llama3d {

std::string GridShape::to_string() const {
  return fmt::format("TP {} x PP {} x DP {}", tp, pp, dp);
}

ProcessGrid::ProcessGrid(GridShape shape, int rank) : shape_(shape) {
  LLAMA3D_EXPECT(shape.tp >= 1 && shape.pp >= 1 && shape.dp >= 1, "grid {}", shape.to_string());
  LLAMA3D_EXPECT(0 <= rank && rank < shape.world(), "rank {} of grid {}", rank, shape.to_string());
  coordinate_ = {.tp = rank % shape.tp, .pp = rank / (shape.tp * shape.dp), .dp = rank / shape.tp % shape.dp};
}

ProcessGrid ProcessGrid::derive(int world_size, int tp_size, int pp_size, int rank) {
  if (tp_size < 1) throw ConfigurationError(fmt::format("--tp-size {} (must be 1 or more)", tp_size));
  if (pp_size < 1) throw ConfigurationError(fmt::format("--pp-size {} (must be 1 or more)", pp_size));
  const std::int64_t model_ranks = std::int64_t{tp_size} * pp_size;
  if (world_size % model_ranks != 0)
    throw ConfigurationError(fmt::format(
        "--tp-size {} x --pp-size {} needs a multiple of {} ranks (this job has {}); start that many "
        "ranks or choose sizes whose product divides {}",
        tp_size, pp_size, model_ranks, world_size, world_size));
  const int dp_size = static_cast<int>(world_size / model_ranks);
  return ProcessGrid({.tp = tp_size, .pp = pp_size, .dp = dp_size}, rank);
}

int ProcessGrid::rank_of(GridCoordinate coordinate) const {
  const auto& [tp, pp, dp] = coordinate;
  LLAMA3D_EXPECT(0 <= tp && tp < shape_.tp && 0 <= pp && pp < shape_.pp && 0 <= dp && dp < shape_.dp,
                 "coordinate tp {} pp {} dp {} of grid {}", tp, pp, dp, shape_.to_string());
  return (pp * shape_.dp + dp) * shape_.tp + tp;
}

std::vector<int> ProcessGrid::tp_group() const {
  std::vector<int> ranks;
  for (int tp = 0; tp < shape_.tp; ++tp) ranks.push_back(rank_of({tp, coordinate_.pp, coordinate_.dp}));
  return ranks;
}

std::vector<int> ProcessGrid::pp_group() const {
  std::vector<int> ranks;
  for (int pp = 0; pp < shape_.pp; ++pp) ranks.push_back(rank_of({coordinate_.tp, pp, coordinate_.dp}));
  return ranks;
}

std::vector<int> ProcessGrid::dp_group() const {
  std::vector<int> ranks;
  for (int dp = 0; dp < shape_.dp; ++dp) ranks.push_back(rank_of({coordinate_.tp, coordinate_.pp, dp}));
  return ranks;
}

}  // namespace llama3d
