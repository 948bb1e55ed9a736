#include "io/printable.hpp"

#include <algorithm>

namespace llama3d::io {

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 300;
  std::string shown(text.substr(0, longest));
  std::replace_if(
      shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text.size() > longest ? shown + "..." : shown;
}

}  // namespace llama3d::io
