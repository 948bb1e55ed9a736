#pragma once
// What the writer and the reader of token files agree on.

#include <cstddef>
#include <cstdint>

namespace llama3d::io {

inline constexpr const char* token_file_format = "llama3d tokens";
inline constexpr std::int64_t token_file_version = 1;
/// Values a chunk: small, because a checksummed chunk is read whole even for a few tokens.
inline constexpr std::size_t token_chunk = 65536;
/// What HDF5 returns for a chunk that was never written. Neither is a legal value, so reading refuses it.
inline constexpr std::uint32_t unwritten_token = 0xffffffffu;
inline constexpr std::uint8_t unwritten_mask = 0xff;

}  // namespace llama3d::io
