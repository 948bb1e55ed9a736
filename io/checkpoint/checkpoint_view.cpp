// checkpoint.h5: what a reader without this program opens. The file is built in memory and written in one go,
// so that a full disk can't leave HDF5 half way.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.hpp"
#include "io/checkpoint/checkpoint_checksums.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/crc32c.hpp"
#include "io/checkpoint/manifest.hpp"
#include "io/hdf5/hdf5.hpp"

namespace llama3d {
namespace {

using namespace io;

constexpr std::size_t longest_attribute = 60000;  // an HDF5 attribute has at most 64 KiB

void write_attributes(hid_t file, const nlohmann::ordered_json& attributes) {
  for (const auto& [name, value] : attributes.items()) {
    LLAMA3D_EXPECT(name != "format" && name != "version", "attribute name '{}' is taken", name);
    if (value.is_number_float()) {
      write_attribute(file, name, value.get<double>());
    } else if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) {
      write_attribute(file, name, value.get<std::uint64_t>());
    } else if (value.is_number()) {
      write_attribute(file, name, value.get<std::int64_t>());
    } else {
      const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
      LLAMA3D_EXPECT(text.size() <= longest_attribute, "attribute '{}' has {} bytes, {} are possible", name,
                     text.size(), longest_attribute);
      write_attribute(file, name, text);
    }
  }
}

std::vector<hsize_t> to_extent(const std::vector<std::int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

// One virtual dataset: every block of it mapped from its rank file. File names are relative, so the folder
// can be moved.
void write_virtual_dataset(hid_t file, const std::vector<RankManifest>& ranks, const DatasetBlocks& group,
                           hid_t link_creation) {
  const std::string& name = group.info.name;
  const auto layout = make_properties(H5P_DATASET_CREATE);
  const auto space = make_space(to_extent(group.info.shape));
  for (const auto& place : group.places) {
    const Block& block = ranks[place.rank].blocks[place.block];
    const Rectangle& r = block.rectangle;
    std::vector<hsize_t> start = {static_cast<hsize_t>(r.row_begin), static_cast<hsize_t>(r.column_begin)};
    std::vector<hsize_t> count = {static_cast<hsize_t>(r.rows()), static_cast<hsize_t>(r.columns())};
    start.resize(group.info.shape.size());
    count.resize(group.info.shape.size());
    const auto source = make_space(count);
    check_hdf5(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
               "select " + block_name(block));
    check_hdf5(H5Pset_virtual(layout.get(), space.get(), ranks[place.rank].file.c_str(),
                              block_name(block).c_str(), source.get()),
               "map " + block_name(block));
  }
  check_hdf5(H5Sselect_all(space.get()), "select " + name);
  const auto type = element_type(group.info.dtype);
  own_hdf5<Hdf5Dataset>(
      H5Dcreate2(file, name.c_str(), type.get(), space.get(), link_creation, layout.get(), H5P_DEFAULT),
      "create dataset " + name);
}

void write_manifest(hid_t file, const std::string& manifest) {
  const auto type = string_type(manifest.size());
  const auto space = own_hdf5<Hdf5Space>(H5Screate(H5S_SCALAR), "make a dataspace");
  const auto dataset = own_hdf5<Hdf5Dataset>(
      H5Dcreate2(file, "manifest", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      "create dataset /manifest");
  check_hdf5(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, manifest.data()),
             "write dataset /manifest");
  write_attribute(dataset.get(), "crc32c", std::int64_t{crc32c(manifest.data(), manifest.size())});
}

std::vector<std::byte> build_view(const std::vector<RankManifest>& ranks,
                                  const std::map<std::string, DatasetBlocks>& datasets,
                                  const std::string& attributes_json) {
  const auto access = file_access();
  check_hdf5(H5Pset_fapl_core(access.get(), std::size_t{1} << 20, false), "keep the file in memory");
  auto file = own_hdf5<Hdf5File>(H5Fcreate("checkpoint.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                                 "create the global view");
  write_attribute(file.get(), "format", std::string(checkpoint_format));
  write_attribute(file.get(), "version", checkpoint_version);
  write_attributes(file.get(), parse_json<nlohmann::ordered_json>(attributes_json));
  const auto link_creation = make_properties(H5P_LINK_CREATE);
  check_hdf5(H5Pset_create_intermediate_group(link_creation.get(), 1), "ask for groups");
  for (const auto& [name, group] : datasets) {
    write_virtual_dataset(file.get(), ranks, group, link_creation.get());
  }
  write_manifest(file.get(), to_json(ranks, attributes_json));
  const std::int64_t checksum_place = add_view_checksum(file.get());
  check_hdf5(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "flush the global view");
  const ssize_t size = H5Fget_file_image(file.get(), nullptr, 0);
  check_hdf5(size, "get the global view");
  std::vector<std::byte> image(static_cast<std::size_t>(size));
  check_hdf5(H5Fget_file_image(file.get(), image.data(), image.size()), "get the global view");
  close_file(file);
  fill_view_checksum(image, checksum_place);
  return image;
}

}  // namespace

void write_global_view(const std::filesystem::path& folder, const std::vector<std::string>& manifests,
                       const std::string& attributes_json) {
  std::vector<RankManifest> ranks;
  std::map<std::string, DatasetBlocks> datasets;
  try {
    for (const std::string& manifest : manifests) ranks.push_back(parse_rank_manifest(manifest));
    datasets = group_by_dataset(ranks);
  } catch (const IoError& error) {
    throw ContractViolation(fmt::format("checkpoint {}: {}", folder.string(), error.what()));
  }
  try {
    for (const RankManifest& rank : ranks) {
      const std::int64_t size = size_of_file(folder / rank.file);
      if (size != rank.bytes)
        throw IoError(fmt::format("{} has {} bytes, not {}", rank.file, size, rank.bytes));
    }
    const auto image = build_view(ranks, datasets, attributes_json);
    write_file(folder / "checkpoint.h5", image.data(), image.size());
    CheckpointReader check(folder);
    expect_view_checksum(folder / "checkpoint.h5");
  } catch (const IoError& error) {
    throw CheckpointWriteError(
        fmt::format("checkpoint file {} cannot be written ({}); make room, earlier checkpoints are kept",
                    (folder / "checkpoint.h5").string(), error.what()));
  } catch (const CheckpointError& error) {
    throw CheckpointWriteError(fmt::format(
        "checkpoint {} reads back wrong ({}); earlier checkpoints are kept", folder.string(), error.what()));
  }
}

}  // namespace llama3d
