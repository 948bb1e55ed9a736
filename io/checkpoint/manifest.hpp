#pragma once
// The manifest of a checkpoint: every rank file, and in it every block with its place and checksum.
// For the files of this module.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/posix/posix_file.hpp"

namespace llama3d::io {

inline constexpr const char* checkpoint_format = "llama3d checkpoint";
inline constexpr const char* rank_file_format = "llama3d checkpoint rank file";
inline constexpr std::int64_t checkpoint_version = 1;
/// Dataset of checkpoint.h5, uint32: CRC32C of the whole file, in which these four bytes count as zeros.
inline constexpr const char* view_checksum_name = "file_crc32c";

/// One rectangle of one dataset in one rank file, stored as a contiguous dataset named block_name().
struct Block {
  std::string dataset;
  std::vector<std::int64_t> shape;  ///< of the whole dataset
  DType dtype = DType::fp32;
  Rectangle rectangle;
  std::uint32_t crc32c = 0;

  std::int64_t bytes() const { return rectangle.elements() * static_cast<std::int64_t>(size_of(dtype)); }
};

/// Name of a block's dataset in its rank file: "/model/model.norm.weight[0:32]",
/// "/model/a.weight[0:32,0:64]".
std::string block_name(const Block& block);

struct RankManifest {
  std::string file;        ///< without folder
  std::int64_t bytes = 0;  ///< size of the file
  std::vector<Block> blocks;
  std::optional<std::uint32_t> headers_crc32c;  ///< of everything in the file but the blocks' elements
};

std::string rank_file_name(int rank);

std::string to_json(const RankManifest& manifest);
/// The whole checkpoint's: the ranks' manifests and the attributes (a JSON object).
std::string to_json(const std::vector<RankManifest>& ranks, const std::string& attributes_json);

struct CheckpointManifest {
  std::vector<RankManifest> ranks;
  std::string attributes_json;
  bool view_has_checksum = false;  ///< checkpoint.h5 holds view_checksum_name
};

/// Both throw IoError for anything that these functions did not write.
RankManifest parse_rank_manifest(const std::string& text);
CheckpointManifest parse_checkpoint_manifest(const std::string& text);

/// The blocks of one dataset.
struct DatasetBlocks {
  DatasetInfo info;
  struct Place {
    std::size_t rank, block;  ///< ranks[rank].blocks[block]
  };
  std::vector<Place> places;
};

/// Groups by dataset name. Throws IoError when blocks of a dataset differ in shape or type, overlap, or leave
/// elements out.
std::map<std::string, DatasetBlocks> group_by_dataset(const std::vector<RankManifest>& ranks);

}  // namespace llama3d::io
