#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llama3d {

/// "1.50 GiB": binary units, three digits.
std::string format_bytes(std::size_t bytes);
/// "5GB", "512 MiB", "1000": a positive number with a unit of thousands (KB, MB, GB, TB) or of 1024s (KiB,
/// ...) or none. Nothing for any other text.
std::optional<std::int64_t> parse_bytes(std::string_view text);

}  // namespace llama3d
