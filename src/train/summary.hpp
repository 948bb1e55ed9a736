#pragma once

#include <string>
#include <vector>

#include "plan/run_plan.hpp"

namespace llama3d {

/// The table that users of other trainers know: method, mbs, grad acc, global bs, seqlen, memory, sec/iter,
/// tokens/sec a rank, MFU. Median over `step_seconds`, the first step left out where there are more; `tokens`
/// are those of all these steps together, without padding.
std::string summary_table(const RunShape& shape, std::size_t memory_bytes, std::vector<double> step_seconds,
                          std::int64_t tokens, std::optional<double> peak_flops);

}  // namespace llama3d
