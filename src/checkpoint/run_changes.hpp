#pragma once
// How a run that goes on differs from the one that saved: lines for people.

#include <string>
#include <vector>

#include "checkpoint/checkpoint_attributes.hpp"

namespace llama3d {

/// Warnings of what a resumed run may change, but hardly wants to: the samples that follow become others.
std::vector<std::string> changed_samples(const RunRecord& before, const RunRecord& now);

/// What it may well change, and should see that it has: options.
std::vector<std::string> changed_options(const RunRecord& before, const RunRecord& now);

}  // namespace llama3d
