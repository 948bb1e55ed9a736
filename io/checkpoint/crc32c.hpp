#pragma once
// CRC32C (Castagnoli), the checksum of the checkpoint manifest: reflected polynomial 0x82F63B78, start and
// final value all ones (RFC 3720, appendix B.4).

#include <cstddef>
#include <cstdint>

namespace llama3d::io {

/// The checksum of `size` bytes, following bytes whose checksum was `previous` (0 at the start). Uses the
/// CPU's instruction where there is one.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t previous = 0);

/// The same by table, for CPUs without the instruction.
std::uint32_t crc32c_software(const void* data, std::size_t size, std::uint32_t previous = 0);

}  // namespace llama3d::io
