#pragma once
// SHA-256 (FIPS 180-4): which file something was made with.

#include <string>
#include <string_view>

namespace llama3d {

/// 64 hexadecimal digits, as sha256sum prints them.
std::string sha256(std::string_view bytes);

}  // namespace llama3d
