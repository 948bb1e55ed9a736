#pragma once

#include <string>
#include <string_view>

namespace llama3d::io {

/// Text from a foreign file for a message of one line: control characters become '?', and of a long text the
/// beginning is shown.
std::string printable(std::string_view text);

}  // namespace llama3d::io
