#pragma once
// The computations of one stage in the order of each schedule's paper, without any communication.

#include <vector>

#include "pipeline/schedule.hpp"

namespace llama3d {

/// `shape` fits `kind`, as make_schedule checks; 0 <= stage < shape.stages.
std::vector<Action> compute_order(ScheduleKind kind, const PipelineShape& shape, int stage,
                                  ReceiveStart receives);

/// Forwards only, the same on every stage.
std::vector<Action> forward_order(const PipelineShape& shape);

}  // namespace llama3d
