#pragma once
// What the ranks of a job that stands still do, in words.

#include <optional>
#include <span>
#include <string>

#include "comm/activity.hpp"

namespace llama3d {

struct RankState {
  std::string label;   ///< of the operation that it waits in; empty: none
  double seconds = 0;  ///< that it has waited
  RunPosition position;
  std::string failure;     ///< of a communicator, one line
  std::string phase = {};  ///< what the operation is part of; empty: a step

  /// One text, and back.
  std::string encode() const;
  static RankState decode(const std::string& text);
};

/// "step 12, micro-batch 4", without what is not known.
std::string to_text(RunPosition position);

/// The headline, and below it a line a rank in rank order; in large jobs one for all ranks in the same state.
/// `states` has none for a rank that did not answer, and always that of rank `own`.
std::string hang_report(const std::string& headline, std::span<const std::string> hosts,
                        std::span<const std::optional<RankState>> states, int own);

}  // namespace llama3d
