#pragma once

#include <string>

namespace llama3d {

/// "0.1.0"
std::string version();
/// Of the checkout the program was built from, with "-dirty" for local changes; "unknown" outside one.
std::string git_revision();

}  // namespace llama3d
