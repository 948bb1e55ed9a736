#pragma once

#include <functional>

namespace llama3d {

/// Runs what needs no other rank: prints an error in one line, on the first task where a launcher started
/// several, and returns its exit status. Results that standard output does not take are an error.
int run_local(const std::function<int()>& body);

}  // namespace llama3d
