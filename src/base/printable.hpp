#pragma once

#include <string>
#include <string_view>

namespace llama3d {

/// Text that comes from a file or is the name of one, for a line on a terminal. What a terminal acts on, or
/// shows as nothing, stands there as an escape: control characters (\n, \u001b, \u0085), those that turn the
/// direction of writing or are invisible (\u202e), and bytes that are no UTF-8 (\xff). Of a text of more than
/// `longest` bytes the beginning is shown, and "...".
std::string printable(std::string_view text, std::size_t longest = 300);

/// The same for text of several lines: its line feeds stay, and every line but the first is indented by
/// `indent`, so that none of them looks like a line of the program's own.
std::string printable_lines(std::string_view text, std::string_view indent = "", std::size_t longest = 65536);

}  // namespace llama3d
