#pragma once

#include "mpi/control_plane.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// How the tp group's communication is to be hidden: as the plan says, and where it leaves the number of
/// blocks open, the number with which the products of a layer take the slowest rank least time. Collective
/// over the job, before weights are in place: it overwrites the parameters. The stage uses the choice from
/// here on.
TensorParallelOverlap choose_overlap(const RankPlan& plan, const Tensor& parameters, Stage& stage,
                                     Device& device, Stream& stream, ControlPlane& control);

}  // namespace llama3d
