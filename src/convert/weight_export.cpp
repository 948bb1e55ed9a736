#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/json.hpp"
#include "checkpoint/tokenizer_files.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "comm/failure.hpp"
#include "convert/weight_output.hpp"
#include "convert/weight_transfer.hpp"
#include "data/tokenizer/tokenizer.hpp"
#include "io/posix/posix_file.hpp"
#include "io/posix/whole_folder.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// One file's tensors.
struct Shard {
  std::string name;
  std::vector<WeightTensor> tensors;
};

std::vector<Shard> make_shards(const std::vector<WeightTensor>& tensors, std::int64_t most_bytes) {
  std::vector<Shard> shards;
  std::int64_t bytes = 0;
  for (const WeightTensor& tensor : tensors) {
    bytes += bytes_of(tensor);
    if (shards.empty() || bytes > most_bytes) {
      shards.emplace_back();
      bytes = bytes_of(tensor);
    }
    shards.back().tensors.push_back(tensor);
  }
  for (std::size_t i = 0; i < shards.size(); ++i)
    shards[i].name = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, shards.size());
  return shards;
}

class ShardWriter {
 public:
  ShardWriter(const WeightSource& source, const fs::path& folder, const ShowProgress& show)
      : source_(source), folder_(folder), show_(show) {}

  void expect(const Shard& shard) {
    for (const WeightTensor& tensor : shard.tensors) progress_.bytes_total += bytes_of(tensor);
  }
  void write(const Shard& shard) {
    std::vector<SafetensorsEntry> entries;
    for (const WeightTensor& tensor : shard.tensors)
      entries.push_back({tensor.name, tensor.dtype, tensor.shape});
    SafetensorsWriter writer(folder_ / shard.name, entries);
    for (const TensorPiece& piece : pieces_of(shard.tensors)) {
      const WeightTensor& tensor = shard.tensors[static_cast<std::size_t>(piece.tensor)];
      const Rectangle& r = piece.rectangle;
      buffer_.resize(static_cast<std::size_t>(piece.bytes));
      source_.read(tensor.name, r, buffer_.data(), tensor.dtype);
      writer.write(tensor.name, buffer_.data(), r.row_begin * r.columns(), r.elements());
      progress_.bytes_done += piece.bytes;
      progress_.tensor = tensor.name;
      if (show_) show_(progress_);
    }
    writer.finish();
  }

 private:
  const WeightSource& source_;
  fs::path folder_;
  const ShowProgress& show_;
  TransferProgress progress_;
  std::vector<std::byte> buffer_;
};

void write_text(const fs::path& path, const std::string& text) {
  try {
    io::write_file(path, text.data(), text.size());
  } catch (const io::IoError& problem) {
    throw DataError(fmt::format("{} cannot be written ({}); make room or choose another --output",
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
  std::string then = "if the tokens are not bytes, give its folder with --tokenizer";
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

/// config.json, generation_config.json, the index and the tokenizer. Returns what a person should know.
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

void check_export(const ExportOptions& options, WeightSource& source) {
  if (options.shard_bytes < 1)
    throw ConfigurationError(fmt::format("--shard-size {}: must be at least 1 byte", options.shard_bytes));
  const fs::path& tokenizer = options.tokenizer;
  const char* right = "name a tokenizer.model, a tokenizer.json or a folder with one, or leave it out";
  if (tokenizer == "bytes")
    throw ConfigurationError(fmt::format("--tokenizer bytes: it has no file to copy; {}", right));
  if (std::error_code ignored; !tokenizer.empty() && !fs::exists(tokenizer, ignored))
    throw ConfigurationError(
        fmt::format("--tokenizer {}: there is no such file or folder; {}", tokenizer.string(), right));
  source.check(source.model());
}

}  // namespace

TransferSummary export_weights(const ExportOptions& options, ControlPlane& control,
                               const ShowProgress& show) {
  std::unique_ptr<WeightSource> source;
  const WeightOutput output{WeightOutput::Kind::model_folder, options.input, options.output,
                            options.overwrite};
  std::unique_ptr<io::PartialFolder> partial;  // rank 0's
  std::string temporary;
  fail_together(control, [&] {
    if (options.input.empty())
      throw ConfigurationError("--input: no checkpoint given; name a checkpoint's folder");
    source = open_weights(options.input);
    check_export(options, *source);
    if (control.rank() != 0) return;
    partial = make_temporary(check_output(output));
    temporary = partial->path().string();
  });
  temporary = control.broadcast(temporary, 0);
  const auto tensors = tensors_to_write(*source, options.dtype);
  const auto shards = make_shards(tensors, options.shard_bytes);
  TransferSummary summary{std::ssize(tensors), 0, std::ssize(shards), {}};
  for (const WeightTensor& tensor : tensors) summary.bytes += bytes_of(tensor);
  const auto rank = static_cast<std::size_t>(control.rank()),
             ranks = static_cast<std::size_t>(control.size());
  fail_together(control, [&] {
    // Before the tensors, which take long.
    if (control.rank() == 0) summary.notes = write_companions(options, *source, shards, temporary);
  });
  fail_together(control, [&] {
    source->verify(control.rank(), control.size());
    ShardWriter writer(*source, temporary, show);
    for (std::size_t i = rank; i < shards.size(); i += ranks) writer.expect(shards[i]);
    for (std::size_t i = rank; i < shards.size(); i += ranks) writer.write(shards[i]);
  });
  fail_together(control, [&] {
    if (control.rank() != 0) return;
    open_weights(temporary)->check(source->model());
    put_in_place(temporary, check_output(output));  // what came into the folder since is no less dear
  });
  return summary;
}

}  // namespace llama3d
