#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/printable.hpp"
#include "io/checkpoint/checkpoint_checksums.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/crc32c.hpp"
#include "io/checkpoint/manifest.hpp"
#include "io/checkpoint/stored_block.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/posix/whole_folder.hpp"

namespace llama3d {

using namespace io;

namespace {

constexpr std::size_t most_open_files = 64;

// Reads and checks /manifest of checkpoint.h5.
CheckpointManifest read_manifest(const std::filesystem::path& path) {
  const Hdf5File file = open_file(path);
  const std::string format = format_of(file.get());
  if (format != checkpoint_format) {
    throw IoError(format.empty() ? "it is HDF5, but no checkpoint" : "it is a '" + format + "' file");
  }
  const std::int64_t version = read_integer_attribute(file.get(), "version");
  if (version != checkpoint_version) {
    throw IoError(fmt::format("its version is {}, this program reads {}", version, checkpoint_version));
  }
  if (!has_link(file.get(), "manifest")) throw IoError("/manifest is missing");
  const auto dataset = open_dataset(file.get(), "manifest");
  const auto type = own_hdf5<Hdf5Type>(H5Dget_type(dataset.get()), "get the manifest's type");
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 ||
      !extent_of(dataset.get()).empty()) {
    throw IoError("/manifest is not a string");
  }
  const std::size_t size = H5Tget_size(type.get());
  if (size > static_cast<std::size_t>(size_of_file(path)))
    throw IoError(fmt::format("/manifest would have {} bytes, more than the file", size));
  std::string text(size, '\0');
  check_hdf5(H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()),
             "read /manifest");
  if (crc32c(text.data(), text.size()) != read_integer_attribute(dataset.get(), "crc32c")) {
    throw IoError("the checksum of /manifest is wrong");
  }
  return parse_checkpoint_manifest(text);
}

/// What a stranger's link leads to is none of the checkpoint's data.
void expect_inside(const std::filesystem::path& folder, const std::string& name) {
  std::error_code error;
  const auto file = std::filesystem::canonical(folder / name, error);
  if (error || file.parent_path() == std::filesystem::canonical(folder, error)) return;
  throw IoError("it is a link to " + printable(file.string()) + ", outside the folder");
}

}  // namespace

struct CheckpointReader::State {
  std::filesystem::path folder;
  CheckpointManifest manifest;
  std::map<std::string, DatasetBlocks> blocks;
  std::vector<DatasetInfo> datasets;
  std::map<std::size_t, std::vector<std::int64_t>> offsets;  // of the rank files looked into so far
  std::map<std::size_t, FileDescriptor> descriptors;         // of some of them

  [[noreturn]] void fail(const std::string& file, const std::string& reason) const {
    throw CheckpointError(fmt::format("checkpoint {} cannot be loaded ({}: {}); use another one",
                                      folder.string(), file, reason));
  }

  void open();
  void check_files() const;
  // File descriptor of a rank file and place of a block's elements in it.
  std::pair<int, std::int64_t> locate(std::size_t rank, std::size_t block);
};

void CheckpointReader::State::open() {
  if (const std::string reason = why_no_folder(folder); !reason.empty()) {
    throw CheckpointError(
        fmt::format("checkpoint {} cannot be loaded ({}); look at the checkpoints folder of the run",
                    folder.string(), reason));
  }
  try {
    manifest = read_manifest(folder / "checkpoint.h5");
    blocks = group_by_dataset(manifest.ranks);
  } catch (const IoError& problem) {
    fail("checkpoint.h5", problem.what());
  }
  for (const auto& [name, group] : blocks) datasets.push_back(group.info);
  check_files();
}

void CheckpointReader::State::check_files() const {
  for (const RankManifest& rank : manifest.ranks) {
    try {
      expect_inside(folder, rank.file);
      const std::int64_t size = size_of_file(folder / rank.file);
      if (size != rank.bytes) throw IoError(fmt::format("it has {} bytes, not {}", size, rank.bytes));
    } catch (const IoError& problem) {
      fail(rank.file, problem.what());
    }
  }
}

std::pair<int, std::int64_t> CheckpointReader::State::locate(std::size_t rank, std::size_t block) {
  const std::filesystem::path path = folder / manifest.ranks[rank].file;
  if (!offsets.contains(rank)) offsets[rank] = offsets_of_blocks(path, manifest.ranks[rank]);
  if (!descriptors.contains(rank)) {
    if (descriptors.size() >= most_open_files) descriptors.clear();
    descriptors[rank] = open_descriptor(path, OpenMode::read);
  }
  return {descriptors[rank].get(), offsets[rank][block]};
}

CheckpointReader::CheckpointReader(const std::filesystem::path& folder) : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->open();
}

CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

const std::filesystem::path& CheckpointReader::folder() const {
  return state_->folder;
}
const std::string& CheckpointReader::attributes() const {
  return state_->manifest.attributes_json;
}
const std::vector<DatasetInfo>& CheckpointReader::datasets() const {
  return state_->datasets;
}
std::int64_t CheckpointReader::files() const {
  return std::ssize(state_->manifest.ranks);
}

std::int64_t CheckpointReader::bytes() const {
  std::int64_t total = 0;
  for (const auto& rank : state_->manifest.ranks) total += rank.bytes;
  return total;
}

const DatasetInfo* CheckpointReader::find(const std::string& dataset) const {
  const auto found = state_->blocks.find(dataset);
  return found == state_->blocks.end() ? nullptr : &found->second.info;
}

std::int64_t CheckpointReader::verify(int part, int parts) const {
  LLAMA3D_EXPECT(part >= 0 && part < parts, "part {} of {}", part, parts);
  State& s = *state_;
  std::int64_t all = 0, before = 0, checked = 0;
  for (const auto& rank : s.manifest.ranks) {
    for (const auto& block : rank.blocks) all += block.bytes();
  }
  std::vector<std::byte> buffer;
  for (std::size_t rank = 0; rank < s.manifest.ranks.size(); ++rank) {
    const RankManifest& manifest = s.manifest.ranks[rank];
    for (std::size_t index = 0; index < manifest.blocks.size(); ++index) {
      const Block& block = manifest.blocks[index];
      // A block belongs to the part that its first byte falls into.
      const auto owner = static_cast<int>(static_cast<double>(before) / static_cast<double>(all) * parts);
      before += block.bytes();
      if (std::min(owner, parts - 1) != part) continue;
      try {
        const auto [descriptor, offset] = s.locate(rank, index);
        const auto crc = crc32c_of_range(descriptor, offset, block.bytes(), buffer);
        if (crc != block.crc32c) throw IoError("the checksum of " + block_name(block) + " is wrong");
      } catch (const IoError& problem) {
        s.fail(manifest.file, problem.what());
      }
      checked += block.bytes();
    }
  }
  return checked;
}

std::vector<std::string> CheckpointReader::verify_headers() const {
  const State& s = *state_;
  std::vector<std::string> without;
  const auto check = [&](const std::string& file, bool has_checksum, const auto& compare) {
    try {
      has_checksum ? compare() : without.push_back(file);
    } catch (const IoError& problem) {
      s.fail(file, problem.what());
    }
  };
  check("checkpoint.h5", s.manifest.view_has_checksum,
        [&] { expect_view_checksum(s.folder / "checkpoint.h5"); });
  for (const RankManifest& rank : s.manifest.ranks)
    check(rank.file, rank.headers_crc32c.has_value(), [&] {
      if (headers_crc32c(s.folder / rank.file, rank) != rank.headers_crc32c)
        throw IoError("the checksum of its headers is wrong: a name, a shape or a type may be damaged");
    });
  return without;
}

void CheckpointReader::read(const std::string& dataset, const Rectangle& rectangle, void* out,
                            DType out_dtype) const {
  State& s = *state_;
  const auto found = s.blocks.find(dataset);
  if (found == s.blocks.end()) {
    s.fail("checkpoint.h5", fmt::format("there is no {}; it may be of another model", dataset));
  }
  if (rectangle.empty()) return;
  const Rectangle all = whole(found->second.info.shape);
  if (intersection(rectangle, all) != rectangle) {
    s.fail("checkpoint.h5", fmt::format("{} is {}, so it has no part {}; it may be of another model", dataset,
                                        to_string(all), to_string(rectangle)));
  }
  const Target target{rectangle, static_cast<std::byte*>(out), out_dtype};
  std::vector<std::byte> buffer;
  for (const auto& place : found->second.places) {
    const RankManifest& manifest = s.manifest.ranks[place.rank];
    const Block& block = manifest.blocks[place.block];
    if (intersection(block.rectangle, rectangle).empty()) continue;
    try {
      const auto [descriptor, offset] = s.locate(place.rank, place.block);
      read_common_part({descriptor, offset, block.rectangle, stored_type(block.dtype)}, target, buffer);
    } catch (const IoError& problem) {
      s.fail(manifest.file, fmt::format("{}: {}", dataset, problem.what()));
    }
  }
}

}  // namespace llama3d
