#include "convert/export_companions.hpp"

#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/json.hpp"
#include "checkpoint/tokenizer_files.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "data/tokenizer/tokenizer.hpp"
#include "io/posix/posix_file.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void write_text(const fs::path& path, const std::string& text) {
  try {
    io::write_file(path, text.data(), text.size());
  } catch (const io::IoError& problem) {
    throw DataError(fmt::format("{} cannot be written ({}); make room or choose another `output`",
                                path.string(), problem.what()));
  }
}

/// Begin and end of text as far as anybody says: the folder of old, or else the tokenizer, which is "bytes"
/// for weights that left that of the folder. What nobody says is null, since transformers takes 1 and 2 for
/// ids that are left out.
Json token_ids(const WeightSource& source, const fs::path& tokenizer) {
  Json ids = {{"bos_token_id", nullptr}, {"eos_token_id", nullptr}, {"pad_token_id", nullptr}};
  const bool bytes = left_for_bytes(source);
  if (source.origin().known() && !bytes) {
    ids.update(parse_json<Json>(source.origin().token_ids));
  } else if (bytes || !tokenizer.empty()) {
    const auto opened = make_tokenizer(bytes ? "bytes" : tokenizer.string());
    ids["bos_token_id"] = opened->begin_of_text();
    ids["eos_token_id"] = opened->end_of_text();
  }
  return ids;
}

void note_another(const WeightSource& source, const std::vector<TokenizerName>& files,
                  std::vector<std::string>& notes) {
  const std::string doubt = tokenizer_doubt(source, "the tokenizer copied is", files);
  if (!doubt.empty()) notes.push_back("warning: " + doubt);
}

/// A tokenizer that was named, and not the one that the weights came with, may be another model's.
void compare_tokenizer(const fs::path& tokenizer, const WeightSource& source,
                       std::vector<std::string>& notes) {
  try {
    const auto opened = make_tokenizer(tokenizer.string());
    const std::int64_t tokens = opened->vocabulary_size(), most = source.model().vocabulary;
    if (tokens > most)
      notes.push_back(
          fmt::format("warning: the tokenizer {} has {} tokens, the model {}: it can't take those above",
                      tokenizer.string(), tokens, most));
    note_another(source, {{opened->name(), opened->file_hash()}}, notes);
  } catch (const Error& error) {
    // It may be of a kind that transformers reads and llama3d does not.
    notes.push_back(
        fmt::format("the tokenizer's tokens could not be compared with the model's: {}", error.what()));
  }
}

/// The folder or file of the tokenizer to copy, empty for none, and what a person should know of it.
fs::path choose_tokenizer(const ExportOptions& options, const WeightSource& source,
                          std::vector<std::string>& notes) {
  const WeightOrigin& origin = source.origin();
  if (!options.tokenizer.empty()) {
    compare_tokenizer(options.tokenizer, source, notes);
    return options.tokenizer;
  }
  const TokenizerPlace found = find_tokenizer(source);
  if (!found.folder.empty()) {
    note_another(source, tokenizers_of(found.folder), notes);
    return found.folder;
  }
  std::string why = origin.known() ? origin.folder + " holds none" : "the weights began at random";
  std::string then = "if the tokens are not bytes, give its folder with `tokenizer`";
  if (left_for_bytes(source)) {
    why = fmt::format("the weights were trained on bytes, not on tokens of {}", origin.folder);
    then = "the ids of begin and end of text are those of bytes";
  }
  notes.push_back(fmt::format("no tokenizer was copied ({}); {}", why, then));
  return {};
}

/// Those of Llama 3's vocabulary.
constexpr std::int64_t llama3_vocabulary = 128256, llama3_begin_of_text = 128000;
/// <|end_of_text|> and <|eot_id|>: training on conversations makes answers end with the second, which the
/// folder of a model that continues texts does not know as an end.
constexpr std::int64_t llama3_ends[] = {128001, 128009};

/// Text of generation_config.json; empty: none. `ids` are those of config.json.
std::string generation_config(const WeightSource& source, const Json& ids, std::vector<std::string>& notes) {
  const std::string& before = source.origin().generation_config;
  Json config = before.empty() ? Json::object() : parse_json<Json>(before);
  if (left_for_bytes(source) && !before.empty()) {
    config.update(ids);
    // With it transformers may take the ids of config.json again.
    config.erase("_from_model_config");
    return config.dump(2) + "\n";
  }
  if (source.tokenizer().name == "bytes" || source.step() == 0 ||
      source.model().vocabulary != llama3_vocabulary)
    return before.empty() ? before : config.dump(2) + "\n";
  if (before.empty())
    // What transformers takes out of config.json where this file is missing.
    for (const auto& [key, id] : ids.items())
      if (!id.is_null()) config[key] = id;
  // With it transformers may take the ids of config.json again.
  config.erase("_from_model_config");
  std::set<std::int64_t> ends = source.origin().end_tokens();
  ends.insert(std::begin(llama3_ends), std::end(llama3_ends));
  config["bos_token_id"] = llama3_begin_of_text;
  config["eos_token_id"] = ends;
  notes.push_back(
      fmt::format("generation_config.json: generation ends at any of the ids {}, <|eot_id|> among them, "
                  "since these weights were trained here",
                  fmt::join(ends, ", ")));
  return config.dump(2) + "\n";
}

}  // namespace

std::vector<std::string> write_companions(const ExportOptions& options, const WeightSource& source,
                                          const std::vector<Shard>& shards, const fs::path& folder) {
  std::vector<std::string> notes;
  const fs::path tokenizer = choose_tokenizer(options, source, notes);
  if (source.step() > 0 && !tokenizer.empty() && has_other_chat_template(tokenizer))
    notes.push_back(
        fmt::format("warning: the chat template copied from {} is not Llama 3's, with which "
                    "conversations are trained here",
                    tokenizer.string()));
  if (!tokenizer.empty())
    notes.push_back(fmt::format("tokenizer: {} from {}",
                                fmt::join(copy_tokenizer_files(tokenizer, folder), ", "),
                                tokenizer.string()));
  Json config = parse_json<Json>(to_json(source.model()));
  bool all_bf16 = true;
  std::int64_t bytes = 0;
  std::map<std::string, std::string> shard_of;
  for (const Shard& shard : shards)
    for (const WeightTensor& tensor : shard.tensors) {
      all_bf16 = all_bf16 && tensor.dtype == DType::bf16;
      bytes += bytes_of(tensor);
      shard_of[tensor.name] = shard.name;
    }
  config["torch_dtype"] = all_bf16 ? "bfloat16" : "float32";
  const Json ids = token_ids(source, tokenizer);
  config.update(ids);
  write_text(folder / "config.json", config.dump(2) + "\n");
  if (const std::string text = generation_config(source, ids, notes); !text.empty())
    write_text(folder / "generation_config.json", text);
  if (shards.size() > 1) write_safetensors_index(folder, shard_of, bytes);
  return notes;
}

}  // namespace llama3d
