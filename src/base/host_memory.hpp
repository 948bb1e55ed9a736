#pragma once
// What the system says of this machine.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace llama3d {

/// Bytes this process can still take: what is available, and no more than its control groups allow.
std::size_t available_host_memory();

/// The text after the colon of the first line of `file` that starts with `key`, such as those of /proc.
std::optional<std::string> system_field(const char* file, std::string_view key);

}  // namespace llama3d
