#pragma once

#include <functional>

namespace llama3d {

/// Runs a command of one process: prints an error in one line and returns its exit status.
int run_local(const std::function<int()>& body);

}  // namespace llama3d
