#pragma once
// What an output file may not be.

#include <filesystem>
#include <vector>

namespace llama3d {

/// Throws ConfigurationError where `output` is one of the files that it is made from, under this or another
/// name: finished, it would replace it. Inputs may be empty, or not there.
void expect_no_input(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs);

}  // namespace llama3d
