#include <fmt/format.h>

#include <algorithm>

#include "io/checkpoint/checkpoint_checksums.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/crc32c.hpp"
#include "io/checkpoint/manifest.hpp"
#include "io/hdf5/hdf5.hpp"

namespace llama3d {

using namespace io;

namespace {

// What HDF5 may add to the file beside the elements of its next dataset: an object header, nodes of the
// groups' trees, and a group's heap of names, which doubles when it is full.
std::int64_t header_room(std::int64_t bytes_of_names) {
  return (std::int64_t{32} << 10) + 4 * bytes_of_names;
}

std::vector<hsize_t> shape_of_block(const Block& block) {
  std::vector<hsize_t> shape = {static_cast<hsize_t>(block.rectangle.rows())};
  if (block.shape.size() == 2) shape.push_back(static_cast<hsize_t>(block.rectangle.columns()));
  return shape;
}

// Through HDF5, as any other program will read it.
std::uint32_t crc_of_dataset(hid_t file, const Block& block, std::vector<std::byte>& buffer) {
  const auto dataset = open_dataset(file, block_name(block));
  const auto shape = shape_of_block(block);
  if (extent_of(dataset.get()) != shape || dtype_of_dataset(dataset.get()) != block.dtype) {
    throw IoError("reading back " + block_name(block) + " finds another shape or type");
  }
  const auto type = element_type(block.dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(block.rectangle.columns()) * size_of(block.dtype);
  const hsize_t rows_at_once = std::max<hsize_t>(1, (std::size_t{8} << 20) / row_bytes);
  std::uint32_t crc = 0;
  for (hsize_t row = 0; row < shape[0]; row += rows_at_once) {
    auto count = shape;
    count[0] = std::min(rows_at_once, shape[0] - row);
    std::vector<hsize_t> start(shape.size(), 0);
    start[0] = row;
    const auto file_space = make_space(shape);
    check_hdf5(
        H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
        "select rows");
    buffer.resize(count[0] * row_bytes);
    check_hdf5(H5Dread(dataset.get(), type.get(), make_space(count).get(), file_space.get(), H5P_DEFAULT,
                       buffer.data()),
               "read back " + block_name(block));
    crc = crc32c(buffer.data(), buffer.size(), crc);
  }
  return crc;
}

}  // namespace

struct RankFileWriter::State {
  std::filesystem::path path;
  RankManifest manifest;
  Hdf5File file;
  SpaceReserve space;
  Hdf5Properties link_creation, dataset_creation;
  std::int64_t bytes_of_names = 0;
  bool failed = false, finished = false;

  template <class Action>
  void guarded(Action&& action) {
    LLAMA3D_EXPECT(!failed && !finished, "{} takes no more", path.string());
    try {
      action();
    } catch (const IoError& error) {
      failed = true;
      throw CheckpointWriteError(
          fmt::format("checkpoint file {} cannot be written ({}); make room, earlier checkpoints are kept",
                      path.string(), error.what()));
    }
  }

  void open(int rank);
  void write_block(const Block& block, const std::byte* data);
  void verify() const;
};

void RankFileWriter::State::open(int rank) {
  file = create_file(path);
  space = SpaceReserve(path);
  space.ensure(header_room(0));
  link_creation = make_properties(H5P_LINK_CREATE);
  check_hdf5(H5Pset_create_intermediate_group(link_creation.get(), 1), "ask for groups");
  dataset_creation = make_properties(H5P_DATASET_CREATE);
  // Every element is written: no fill values, and the space exists from the start.
  check_hdf5(H5Pset_layout(dataset_creation.get(), H5D_CONTIGUOUS), "ask for a contiguous layout");
  check_hdf5(H5Pset_alloc_time(dataset_creation.get(), H5D_ALLOC_TIME_EARLY), "ask for space");
  check_hdf5(H5Pset_fill_time(dataset_creation.get(), H5D_FILL_TIME_NEVER), "switch fill values off");
  write_attribute(file.get(), "format", std::string(rank_file_format));
  write_attribute(file.get(), "version", checkpoint_version);
  write_attribute(file.get(), "rank", std::int64_t{rank});
}

void RankFileWriter::State::write_block(const Block& block, const std::byte* data) {
  const std::string name = block_name(block);
  bytes_of_names += std::ssize(name);
  space.ensure(file_size(file.get()) + block.bytes() + header_room(bytes_of_names));
  const auto type = element_type(block.dtype);
  const auto shape = make_space(shape_of_block(block));
  const auto dataset =
      own_hdf5<Hdf5Dataset>(H5Dcreate2(file.get(), name.c_str(), type.get(), shape.get(), link_creation.get(),
                                       dataset_creation.get(), H5P_DEFAULT),
                            "create dataset " + name);
  check_hdf5(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data),
             "write dataset " + name);
}

void RankFileWriter::State::verify() const {
  const Hdf5File again = open_file(path);
  std::vector<std::byte> buffer;
  for (const Block& block : manifest.blocks) {
    if (crc_of_dataset(again.get(), block, buffer) != block.crc32c) {
      throw IoError("reading back " + block_name(block) + " finds other data than was written");
    }
  }
}

RankFileWriter::RankFileWriter(const std::filesystem::path& folder, int rank)
    : state_(std::make_unique<State>()) {
  state_->manifest.file = rank_file_name(rank);
  state_->path = folder / state_->manifest.file;
  state_->guarded([&] { state_->open(rank); });
}

RankFileWriter::~RankFileWriter() = default;
RankFileWriter::RankFileWriter(RankFileWriter&&) noexcept = default;

void RankFileWriter::write(const CheckpointPiece& piece) {
  expect_valid(piece);
  state_->guarded([&] {
    const auto* data = static_cast<const std::byte*>(piece.data);
    for (const Rectangle& rectangle : piece.rectangles) {
      if (rectangle.empty()) continue;
      Block block{piece.dataset, piece.global_shape, piece.dtype, rectangle, 0};
      block.crc32c = crc32c(data, static_cast<std::size_t>(block.bytes()));
      state_->write_block(block, data);
      data += block.bytes();
      state_->manifest.blocks.push_back(std::move(block));
    }
  });
}

std::string RankFileWriter::finish() {
  State& s = *state_;
  s.guarded([&] {
    check_hdf5(H5Fflush(s.file.get(), H5F_SCOPE_GLOBAL), "flush the file");
    close_file(s.file);
    s.manifest.bytes = size_of_file(s.path);
    s.space.finish(s.manifest.bytes);
    s.verify();
    s.manifest.headers_crc32c = headers_crc32c(s.path, s.manifest);
  });
  s.finished = true;
  return to_json(s.manifest);
}

}  // namespace llama3d
