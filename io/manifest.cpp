#include "io/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <set>

namespace llama3d::io {
namespace {

using Json = nlohmann::ordered_json;

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
  return {{"file", manifest.file}, {"bytes", manifest.bytes}, {"blocks", std::move(blocks)}};
}

Block block_of(const Json& json) {
  Block block;
  block.dataset = json.at("dataset").get<std::string>();
  block.shape = json.at("shape").get<std::vector<std::int64_t>>();
  const auto dtype = dtype_named(json.at("dtype").get<std::string>());
  if (!dtype) throw IoError("unknown dtype of " + block.dataset);
  block.dtype = *dtype;
  const auto r = json.at("rectangle").get<std::vector<std::int64_t>>();
  if (r.size() != 4) throw IoError("damaged rectangle of " + block.dataset);
  block.rectangle = {r[0], r[1], r[2], r[3]};
  block.crc32c = static_cast<std::uint32_t>(std::stoul(json.at("crc32c").get<std::string>(), nullptr, 16));
  const bool shape_fits = block.shape.size() == 1 || block.shape.size() == 2;
  if (!shape_fits || block.rectangle.empty() ||
      intersection(block.rectangle, whole(block.shape)) != block.rectangle ||
      json.at("bytes").get<std::int64_t>() != block.bytes()) {
    throw IoError("block " + block_name(block) + " contradicts itself");
  }
  return block;
}

RankManifest rank_of(const Json& json) {
  RankManifest manifest;
  manifest.file = json.at("file").get<std::string>();
  manifest.bytes = json.at("bytes").get<std::int64_t>();
  if (manifest.file.empty() || manifest.file.find('/') != std::string::npos)
    throw IoError("damaged file name");
  for (const Json& block : json.at("blocks")) manifest.blocks.push_back(block_of(block));
  return manifest;
}

template <class Parse>
auto parsed(const std::string& text, Parse&& parse) {
  try {
    return parse(Json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    throw IoError(std::string("the manifest is damaged: ") + error.what());
  } catch (const std::logic_error& error) {  // of std::stoul
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
              {"attributes", Json::parse(attributes_json)},
              {"files", std::move(files)}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankManifest parse_rank_manifest(const std::string& json) {
  return parsed(json, rank_of);
}

CheckpointManifest parse_checkpoint_manifest(const std::string& json) {
  return parsed(json, [](const Json& root) {
    CheckpointManifest manifest;
    const auto version = root.at("version").get<std::int64_t>();
    if (version != checkpoint_version) {
      throw IoError(fmt::format("its version is {}, this program reads {}", version, checkpoint_version));
    }
    manifest.attributes_json = root.at("attributes").dump();
    for (const Json& file : root.at("files")) manifest.ranks.push_back(rank_of(file));
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
    std::int64_t covered = 0;
    for (const auto& place : group.places) {
      rectangles.push_back(ranks[place.rank].blocks[place.block].rectangle);
      covered += rectangles.back().elements();
    }
    expect_disjoint(std::move(rectangles), name);
    // Disjoint and inside the shape, so an equal count means covered.
    const std::int64_t all = whole(group.info.shape).elements();
    if (covered != all)
      throw IoError(fmt::format("only {} of {} elements of {} are there", covered, all, name));
  }
  return result;
}

}  // namespace llama3d::io
