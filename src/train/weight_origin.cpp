#include "train/weight_origin.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "io/foreign_json.hpp"
#include "io/model_folder.hpp"
#include "io/posix_file.hpp"

namespace llama3d {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// It becomes an attribute of checkpoints, which has room for so much and is of a few hundred bytes.
constexpr std::size_t largest_generation_config = 32768;

json parse_object(const std::string& text, const std::string& place) {
  try {
    return io::parse_foreign_json(text);
  } catch (const io::IoError& problem) {
    throw DataError(fmt::format("{} cannot be used ({}); repair it", place, problem.what()));
  }
}

}  // namespace

std::set<std::int64_t> WeightOrigin::end_tokens() const {
  std::set<std::int64_t> ends;
  const auto add = [&](const json& id) {
    if (id.is_number_integer()) ends.insert(id.get<std::int64_t>());
  };
  for (const std::string* text : {&token_ids, &generation_config}) {
    if (text->empty()) continue;
    const json said = json::parse(*text).value("eos_token_id", json());
    add(said);
    if (said.is_array())
      for (const json& id : said) add(id);
  }
  return ends;
}

std::string WeightOrigin::to_json() const {
  json object = {{"folder", folder}, {"token_ids", json::parse(token_ids.empty() ? "{}" : token_ids)}};
  if (!generation_config.empty()) object["generation_config"] = json::parse(generation_config);
  return object.dump();
}

WeightOrigin WeightOrigin::parse(const std::string& text, const std::string& place) {
  const json object = parse_object(text, place);
  try {
    WeightOrigin origin{object.at("folder"), object.at("token_ids").dump(), {}};
    if (object.contains("generation_config")) origin.generation_config = object["generation_config"].dump();
    return origin;
  } catch (const json::exception& error) {
    throw DataError(fmt::format("{} is incomplete ({})", place, error.what()));
  }
}

WeightOrigin WeightOrigin::of_folder(const fs::path& folder) {
  WeightOrigin origin{fs::weakly_canonical(folder).string(), {}, {}};
  const auto config = parse_object(read_model_file(folder, "config.json"), (folder / "config.json").string());
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
  origin.generation_config = parse_object(text, generation.string()).dump();
  return origin;
}

}  // namespace llama3d
