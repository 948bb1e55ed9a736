#pragma once
// How a run that goes on differs from the one that saved: lines for people.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint_attributes.hpp"

namespace llama3d {

/// Warnings of changes that a resumed run may make, but hardly wants to: the samples that follow become
/// others.
std::vector<std::string> changed_samples(const RunRecord& before, const RunRecord& now);

/// Options of these names, which it may well change. Its user should see that they are.
std::vector<std::string> changed_options(const RunRecord& before, const RunRecord& now,
                                         std::span<const std::string_view> names);

}  // namespace llama3d
