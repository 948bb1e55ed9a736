#pragma once
// What can be told wrong about a schedule without playing it.

#include "pipeline/schedule.hpp"

namespace llama3d {

/// Throws ContractViolation, naming rank and action, unless every stage does each micro-batch's part of each
/// chunk exactly once and in a valid order, with exactly the transfers this needs, receives in the order they
/// are sent, and never more than kBuffersPerChannel of what it receives on a channel in use.
void check_schedule(const Schedule& schedule);

}  // namespace llama3d
