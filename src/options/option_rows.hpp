#pragma once
// The two halves of the table of options.

#include "options/option.hpp"

namespace llama3d {

/// Those that TrainSettings holds.
std::vector<Option> training_options();
/// Those of commands alone.
std::vector<Option> command_options();

inline constexpr std::string_view comm_timeout_help =
    "seconds a rank may wait for others (a checkpoint being written, too) before the job is reported as hung "
    "and ended; 0: no limit";

}  // namespace llama3d
