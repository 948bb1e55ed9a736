#include "io/checkpoint/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <set>
#include <system_error>

#include "base/json.hpp"
#include "base/model_folder.hpp"
#include "base/printable.hpp"

namespace llama3d::io {
namespace {

using nlohmann::json;
using Json = nlohmann::ordered_json;  // what is written

std::optional<DType> dtype_named(const std::string& name) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64, DType::int32}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

Json json_of(const RankManifest& manifest) {
  Json blocks = Json::array();
  for (const Block& block : manifest.blocks) {
    const Rectangle& r = block.rectangle;
    blocks.push_back({{"dataset", block.dataset},
                      {"shape", block.shape},
                      {"dtype", std::string(name_of(block.dtype))},
                      {"rectangle", {r.row_begin, r.row_end, r.column_begin, r.column_end}},
                      {"bytes", block.bytes()},
                      {"crc32c", fmt::format("{:08x}", block.crc32c)}});
  }
  Json json = {{"file", manifest.file}, {"bytes", manifest.bytes}};
  if (manifest.headers_crc32c) json["headers_crc32c"] = fmt::format("{:08x}", *manifest.headers_crc32c);
  json["blocks"] = std::move(blocks);
  return json;
}

/// Bytes and offsets of its elements do not overflow.
bool fits_a_file(const std::vector<std::int64_t>& shape) {
  std::int64_t bytes = 8;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) return false;
  return true;
}

/// "0a1b2c3d", as it is written.
std::uint32_t checksum_of(const std::string& text) {
  std::uint32_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, 16);
  if (error != std::errc() || stop != end)
    throw JsonError(fmt::format("crc32c is \"{}\"; it must be 8 hexadecimal digits", printable(text, 20)));
  return value;
}

Block block_of(const json& object) {
  Block block;
  block.dataset = json_text_in(object, "dataset");
  const std::string shown = printable(block.dataset);
  block.shape = json_integers(json_member(object, "shape"), "shape of " + shown);
  const auto dtype = dtype_named(json_text_in(object, "dtype"));
  if (!dtype) throw JsonError("unknown dtype of " + shown);
  block.dtype = *dtype;
  const auto r = json_integers(json_member(object, "rectangle"), "rectangle of " + shown);
  if (r.size() != 4) throw JsonError("damaged rectangle of " + shown);
  block.rectangle = {r[0], r[1], r[2], r[3]};
  block.crc32c = checksum_of(json_text_in(object, "crc32c"));
  const bool shape_fits = block.shape.size() == 1 || block.shape.size() == 2;
  if (!shape_fits || block.rectangle.empty() || !fits_a_file(block.shape) ||
      intersection(block.rectangle, whole(block.shape)) != block.rectangle ||
      json_integer_in(object, "bytes") != block.bytes())
    throw JsonError(fmt::format("the block of {} contradicts itself", shown));
  return block;
}

RankManifest rank_of(const json& object) {
  RankManifest manifest;
  manifest.file = json_text_in(object, "file");
  manifest.bytes = json_integer_in(object, "bytes");
  if (find_json_member(object, "headers_crc32c"))
    manifest.headers_crc32c = checksum_of(json_text_in(object, "headers_crc32c"));
  if (!is_plain_file_name(manifest.file)) throw JsonError("damaged file name " + printable(manifest.file));
  for (const json& block : json_array(json_member(object, "blocks"), "blocks"))
    if (manifest.blocks.emplace_back(block_of(block)).bytes() > manifest.bytes)
      throw JsonError(fmt::format("{} is smaller than one of its blocks", printable(manifest.file)));
  return manifest;
}

/// Those of a run take some thousands.
constexpr std::size_t longest_attributes = std::size_t{1} << 20;

template <class Parse>
auto parsed(const std::string& text, Parse&& parse) {
  // A checkpoint of very many ranks has millions of values in its manifest. What they take in memory is
  // bounded by the file: a value has two bytes and more of text.
  constexpr JsonLimits limits{.values = std::size_t{1} << 26};
  try {
    return parse(parse_json_object(text, limits));
  } catch (const JsonError& error) {
    throw IoError(std::string("the manifest is damaged: ") + error.what());
  }
}

// Sweeps over rows, keeping the blocks that the current row cuts, ordered by column: neighbours overlap or
// none do.
void expect_disjoint(std::vector<Rectangle> rectangles, const std::string& dataset) {
  std::sort(rectangles.begin(), rectangles.end(),
            [](const Rectangle& a, const Rectangle& b) { return a.row_begin < b.row_begin; });
  const auto by_column = [](const Rectangle* a, const Rectangle* b) {
    return a->column_begin < b->column_begin;
  };
  const auto ends_later = [](const Rectangle* a, const Rectangle* b) { return a->row_end > b->row_end; };
  std::set<const Rectangle*, decltype(by_column)> active(by_column);
  std::priority_queue<const Rectangle*, std::vector<const Rectangle*>, decltype(ends_later)> ends(ends_later);
  const auto overlap = [&](const Rectangle& a, const Rectangle& b) {
    throw IoError(fmt::format("parts {} and {} of {} overlap", to_string(a), to_string(b), dataset));
  };
  for (const Rectangle& r : rectangles) {
    for (; !ends.empty() && ends.top()->row_end <= r.row_begin; ends.pop()) active.erase(ends.top());
    const auto next = active.lower_bound(&r);
    if (next != active.end() && (*next)->column_begin < r.column_end) overlap(**next, r);
    if (next != active.begin() && (*std::prev(next))->column_end > r.column_begin)
      overlap(**std::prev(next), r);
    active.insert(&r);
    ends.push(&r);
  }
}

}  // namespace

std::string block_name(const Block& block) {
  const Rectangle& r = block.rectangle;
  if (block.shape.size() == 1) return fmt::format("{}[{}:{}]", block.dataset, r.row_begin, r.row_end);
  return fmt::format("{}[{}:{},{}:{}]", block.dataset, r.row_begin, r.row_end, r.column_begin, r.column_end);
}

std::string rank_file_name(int rank) {
  return fmt::format("rank_{:05d}.h5", rank);
}

std::string to_json(const RankManifest& manifest) {
  return json_of(manifest).dump();
}

std::string to_json(const std::vector<RankManifest>& ranks, const std::string& attributes_json) {
  Json files = Json::array();
  for (const RankManifest& rank : ranks) files.push_back(json_of(rank));
  return Json{{"format", checkpoint_format},
              {"version", checkpoint_version},
              {"attributes", parse_json<Json>(attributes_json)},
              {"view_checksum", view_checksum_name},
              {"files", std::move(files)}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankManifest parse_rank_manifest(const std::string& text) {
  return parsed(text, rank_of);
}

CheckpointManifest parse_checkpoint_manifest(const std::string& text) {
  return parsed(text, [](const json& root) {
    CheckpointManifest manifest;
    const std::int64_t version = json_integer_in(root, "version");
    if (version != checkpoint_version) {
      throw IoError(fmt::format("its version is {}, this program reads {}", version, checkpoint_version));
    }
    manifest.view_has_checksum = find_json_member(root, "view_checksum") != nullptr;
    const json& attributes = json_member(root, "attributes");
    if (!attributes.is_object()) throw JsonError("the attributes are no object");
    manifest.attributes_json = attributes.dump();
    if (manifest.attributes_json.size() > longest_attributes)
      throw JsonError(fmt::format("the attributes take more than {} bytes", longest_attributes));
    for (const json& file : json_array(json_member(root, "files"), "files"))
      manifest.ranks.push_back(rank_of(file));
    return manifest;
  });
}

std::map<std::string, DatasetBlocks> group_by_dataset(const std::vector<RankManifest>& ranks) {
  std::map<std::string, DatasetBlocks> result;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (std::size_t index = 0; index < ranks[rank].blocks.size(); ++index) {
      const Block& block = ranks[rank].blocks[index];
      DatasetBlocks& group = result[block.dataset];
      if (group.places.empty()) group.info = {block.dataset, block.shape, block.dtype};
      if (group.info.shape != block.shape || group.info.dtype != block.dtype) {
        throw IoError(fmt::format("{} has another shape or type for {} than {}", ranks[rank].file,
                                  block.dataset, ranks[group.places.front().rank].file));
      }
      group.places.push_back({rank, index});
    }
  }
  for (const auto& [name, group] : result) {
    std::vector<Rectangle> rectangles;
    for (const auto& place : group.places)
      rectangles.push_back(ranks[place.rank].blocks[place.block].rectangle);
    expect_disjoint(rectangles, name);
    // Disjoint and inside the shape, so an equal count means covered.
    std::int64_t covered = 0;
    for (const Rectangle& rectangle : rectangles) covered += rectangle.elements();
    const std::int64_t all = whole(group.info.shape).elements();
    if (covered != all)
      throw IoError(fmt::format("only {} of {} elements of {} are there", covered, all, name));
  }
  return result;
}

}  // namespace llama3d::io
