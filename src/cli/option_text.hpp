#pragma once

#include <string>
#include <string_view>

namespace llama3d {

/// Text of the libraries for people on the command line: a field in backquotes, `tp_size` or `tp_size 3`,
/// becomes the option that sets it, --tp-size or --tp-size 3. Other backquotes stay.
std::string with_option_names(std::string_view text);

}  // namespace llama3d
