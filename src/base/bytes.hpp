#pragma once

#include <cstddef>
#include <string>

namespace llama3d {

/// "1.50 GiB": binary units, three digits.
std::string format_bytes(std::size_t bytes);

}  // namespace llama3d
