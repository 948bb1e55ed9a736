#include "checkpoint/weight_origin.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/model_folder.hpp"
#include "checkpoint/tokenizer_files.hpp"

namespace llama3d {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// It becomes an attribute of checkpoints, which has room for so much and is of a few hundred bytes.
constexpr std::size_t largest_generation_config = 32768;

json parse_object(const std::string& text, const std::string& place, const JsonLimits& limits) {
  try {
    return parse_json_object(text, limits);
  } catch (const JsonError& problem) {
    throw DataError(fmt::format("{} cannot be used ({}); repair it", place, problem.what()));
  }
}

/// One of a folder's files. Parts of it are kept in other JSON, which may not become too deep for itself.
json parse_file(const fs::path& folder, const char* name, const std::string& text) {
  return parse_object(text, (folder / name).string(), {.depth = 16, .distinct_keys = true});
}

}  // namespace

std::set<std::int64_t> WeightOrigin::end_tokens() const {
  std::set<std::int64_t> ends;
  const auto add = [&](const json& id) {
    if (const auto token = integer_within(id, 0, largest_integer)) ends.insert(*token);
  };
  for (const std::string* text : {&token_ids, &generation_config}) {
    if (text->empty()) continue;
    const json said = parse_json(*text);
    const json* ids = find_json_member(said, "eos_token_id");
    if (!ids) continue;
    add(*ids);
    if (ids->is_array())
      for (const json& id : *ids) add(id);
  }
  return ends;
}

std::string WeightOrigin::to_json() const {
  json object = {{"folder", folder}, {"token_ids", parse_json(token_ids.empty() ? "{}" : token_ids)}};
  if (!generation_config.empty()) object["generation_config"] = parse_json(generation_config);
  for (const TokenizerName& file : tokenizers) object["tokenizers"][file.name] = file.hash;
  return object.dump(-1, ' ', false, json::error_handler_t::replace);  // a folder's name may be no UTF-8
}

WeightOrigin WeightOrigin::parse(const std::string& text, const std::string& place) {
  const json object = parse_object(text, place, {});
  const auto text_of_object = [&](const char* name, const std::string& otherwise) {
    const json* member = find_json_member(object, name);
    if (!member) return otherwise;
    if (!member->is_object())
      throw JsonError(fmt::format("{} is {}; it must be an object", name, json_excerpt(*member)));
    return member->dump();
  };
  try {
    WeightOrigin origin{json_text_in(object, "folder"),
                        text_of_object("token_ids", "{}"),
                        text_of_object("generation_config", ""),
                        {}};
    if (const json* tokenizers = find_json_member(object, "tokenizers");
        tokenizers && tokenizers->is_object())
      for (const auto& [name, hash] : tokenizers->items())
        origin.tokenizers.push_back({name, json_text_in(*tokenizers, name.c_str())});
    return origin;
  } catch (const JsonError& error) {
    throw DataError(fmt::format("{}: where its weights come from is damaged ({})", place, error.what()));
  }
}

WeightOrigin WeightOrigin::of_folder(const fs::path& folder) {
  WeightOrigin origin{fs::weakly_canonical(folder).string(), {}, {}, tokenizers_of(folder)};
  const json config = parse_file(folder, "config.json", read_model_file(folder, "config.json"));
  json ids = json::object();
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (config.contains(key)) ids[key] = config[key];
  origin.token_ids = ids.dump();
  const fs::path generation = folder / "generation_config.json";
  if (!fs::exists(generation)) return origin;
  const std::string text = read_model_file(folder, "generation_config.json");
  if (text.size() > largest_generation_config)
    throw DataError(fmt::format("{} has {} bytes (at most {} are expected); shorten or remove it",
                                generation.string(), text.size(), largest_generation_config));
  origin.generation_config = parse_file(folder, "generation_config.json", text).dump();
  return origin;
}

}  // namespace llama3d
