#pragma once
// Which token file a run reads.

#include <string>

#include "io/tokens/token_file.hpp"

namespace llama3d {

/// SHA-256 of what tells one token file from another: its sizes, where its documents begin, and stretches of
/// its tokens and loss mask throughout. The same for a copy, whatever its name.
std::string identity_of(const TokenFileReader& file);

}  // namespace llama3d
