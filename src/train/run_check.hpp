#pragma once
// The checks of a run before anything is allocated, loaded or written.

#include <string>

#include "options/settings.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// Checks everything that can be checked without allocating or writing: settings, shapes, memory, data files.
/// Throws what training would. Ranks that are only `assumed` have other machines' memory, with which theirs
/// is not compared. Every rank looks at the files; the first one sees whether another run is in the output
/// folder.
struct RunCheck {
  MemoryPlan memory;  ///< of the rank that needs most
  std::string data;   ///< what the token files hold, and doubts about them and the weights, for people
};
RunCheck check_run(const TrainSettings& settings, int rank, int world_size, bool assumed,
                   const Device& device, const Kernels& kernels);

}  // namespace llama3d
