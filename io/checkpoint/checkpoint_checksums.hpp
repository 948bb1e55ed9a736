#pragma once
// Checksums of what a checkpoint's files hold beside the elements of tensors: attributes, names, mappings,
// HDF5's own headers. For the files of this module.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "io/checkpoint/manifest.hpp"
#include "io/hdf5/hdf5.hpp"

namespace llama3d::io {

/// CRC32C of a rank file without its blocks' elements, which have checksums of their own. Throws IoError
/// where the blocks are not as the manifest says.
std::uint32_t headers_crc32c(const std::filesystem::path& path, const RankManifest& manifest);

/// Where each block's elements begin in its rank file. Throws IoError as above.
std::vector<std::int64_t> offsets_of_blocks(const std::filesystem::path& path, const RankManifest& manifest);

/// CRC32C of a range of a file. `buffer` is scratch.
std::uint32_t crc32c_of_range(int descriptor, std::int64_t offset, std::int64_t bytes,
                              std::vector<std::byte>& buffer, std::uint32_t previous = 0);

/// Adds the dataset view_checksum_name, a zero, to an open checkpoint.h5 and returns its four bytes' place.
std::int64_t add_view_checksum(hid_t file);
/// Puts the checksum of a finished checkpoint.h5 in its place.
void fill_view_checksum(std::vector<std::byte>& image, std::int64_t place);
/// Throws IoError where a checkpoint.h5 that has a checksum is not what it is of.
void expect_view_checksum(const std::filesystem::path& path);

}  // namespace llama3d::io
