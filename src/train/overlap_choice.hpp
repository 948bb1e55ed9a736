#pragma once

#include <string>
#include <vector>

#include "comm/control_plane.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// A number of blocks that was tried, and the seconds that a layer takes the slowest rank with it.
struct OverlapTrial {
  int blocks = 1;
  double seconds = 0;
};
struct OverlapChoice {
  TensorParallelOverlap overlap;
  std::vector<OverlapTrial> trials;  ///< none where there was nothing to choose
  /// "2 blocks (measured: 1: 2.10 ms, 2: 1.90 ms)".
  std::string to_string() const;
};

/// How the tp group's communication is to be hidden: as the plan says, and where it leaves the number of
/// blocks open, the number with which a layer's forward and backward take the slowest rank least time.
/// Collective over the job, before weights are in place: it overwrites what `memory` holds. The stage uses
/// the choice from here on.
OverlapChoice choose_overlap(const RankPlan& plan, const RankMemory& memory, Stage& stage, Device& device,
                             Stream& stream, ControlPlane& control);

}  // namespace llama3d
