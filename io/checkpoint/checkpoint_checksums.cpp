#include "io/checkpoint/checkpoint_checksums.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "io/checkpoint/crc32c.hpp"

namespace llama3d::io {
namespace {

constexpr std::int64_t buffer_bytes = std::int64_t{8} << 20;
constexpr std::size_t checksum_bytes = sizeof(std::uint32_t);

std::int64_t place_of(hid_t dataset) {
  const haddr_t offset = H5Dget_offset(dataset);
  if (offset == HADDR_UNDEF) throw IoError(fmt::format("/{} is not stored in one piece", view_checksum_name));
  return static_cast<std::int64_t>(offset);
}

/// Of the image with zeros in the checksum's place.
std::uint32_t view_crc32c(std::vector<std::byte>& image, std::int64_t place) {
  std::memset(image.data() + place, 0, checksum_bytes);
  return crc32c(image.data(), image.size());
}

}  // namespace

std::uint32_t crc32c_of_range(int descriptor, std::int64_t offset, std::int64_t bytes,
                              std::vector<std::byte>& buffer, std::uint32_t previous) {
  std::uint32_t crc = previous;
  while (bytes > 0) {
    buffer.resize(static_cast<std::size_t>(std::min(bytes, buffer_bytes)));
    read_at(descriptor, buffer.data(), buffer.size(), offset);
    crc = crc32c(buffer.data(), buffer.size(), crc);
    offset += static_cast<std::int64_t>(buffer.size());
    bytes -= static_cast<std::int64_t>(buffer.size());
  }
  return crc;
}

std::vector<std::int64_t> offsets_of_blocks(const std::filesystem::path& path, const RankManifest& manifest) {
  std::vector<std::int64_t> offsets;
  const Hdf5File file = open_file(path);
  for (const Block& block : manifest.blocks) {
    const auto dataset = open_dataset(file.get(), block_name(block));
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset == HADDR_UNDEF || H5Dget_storage_size(dataset.get()) != static_cast<hsize_t>(block.bytes()) ||
        dtype_of_dataset(dataset.get()) != block.dtype) {
      throw IoError(block_name(block) + " is not as the manifest says");
    }
    offsets.push_back(static_cast<std::int64_t>(offset));
  }
  return offsets;
}

std::uint32_t headers_crc32c(const std::filesystem::path& path, const RankManifest& manifest) {
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;  // begin and end
  const auto offsets = offsets_of_blocks(path, manifest);
  for (std::size_t i = 0; i < offsets.size(); ++i)
    blocks.emplace_back(offsets[i], offsets[i] + manifest.blocks[i].bytes());
  std::sort(blocks.begin(), blocks.end());
  const std::int64_t size = size_of_file(path);
  blocks.emplace_back(size, size);
  const FileDescriptor file = open_descriptor(path, OpenMode::read);
  std::vector<std::byte> buffer;
  std::int64_t from = 0;
  std::uint32_t crc = 0;
  for (const auto& [begin, end] : blocks) {
    crc = crc32c_of_range(file.get(), from, begin - from, buffer, crc);
    from = end;
  }
  return crc;
}

std::int64_t add_view_checksum(hid_t file) {
  const auto creation = make_properties(H5P_DATASET_CREATE);
  check_hdf5(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), "ask for a contiguous layout");
  check_hdf5(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), "ask for space");
  const auto space = own_hdf5<Hdf5Space>(H5Screate(H5S_SCALAR), "make a dataspace");
  const std::string what = fmt::format("create dataset /{}", view_checksum_name);
  const auto dataset = own_hdf5<Hdf5Dataset>(H5Dcreate2(file, view_checksum_name, H5T_STD_U32LE, space.get(),
                                                        H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                                             what);
  const std::uint32_t zero = 0;
  check_hdf5(H5Dwrite(dataset.get(), H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, &zero), what);
  return place_of(dataset.get());
}

void fill_view_checksum(std::vector<std::byte>& image, std::int64_t place) {
  const std::uint32_t crc = view_crc32c(image, place);
  std::memcpy(image.data() + place, &crc, checksum_bytes);
}

void expect_view_checksum(const std::filesystem::path& path) {
  std::int64_t place = 0;
  {
    const Hdf5File file = open_file(path);
    if (!has_link(file.get(), view_checksum_name))
      throw IoError(fmt::format("/{} is missing", view_checksum_name));
    place = place_of(open_dataset(file.get(), view_checksum_name).get());
  }
  std::vector<std::byte> image(static_cast<std::size_t>(size_of_file(path)));
  if (place < 0 || place > std::ssize(image) - static_cast<std::int64_t>(checksum_bytes))
    throw IoError(fmt::format("/{} lies outside the file", view_checksum_name));
  const FileDescriptor file = open_descriptor(path, OpenMode::read);
  read_at(file.get(), image.data(), image.size(), 0);
  std::uint32_t stored = 0;
  std::memcpy(&stored, image.data() + place, checksum_bytes);
  if (view_crc32c(image, place) != stored)
    throw IoError("its checksum is wrong: an attribute, a name or a mapping may be damaged");
}

}  // namespace llama3d::io
