#pragma once
// Which instruction sets the kernels were compiled for, and whether this CPU has them.

#include <span>
#include <string_view>

namespace llama3d::host {

/// Names as in __builtin_cpu_supports ("avx2", "avx512f", ...) of what the kernels may execute.
/// Constant data: reading it runs no code that was compiled for those instruction sets.
extern const std::span<const std::string_view> compiled_features;

/// Whether this CPU and operating system run the instruction set. Unknown names are not supported.
bool cpu_supports(std::string_view feature);

/// Throws ConfigurationError naming what is missing unless every feature is supported.
void require_features(std::span<const std::string_view> features);

}  // namespace llama3d::host
