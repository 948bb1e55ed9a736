#include "checkpoint/tokenizer_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/model_folder.hpp"
#include "base/sha256.hpp"
#include "io/posix/posix_file.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 2> vocabularies = {"tokenizer.json", "tokenizer.model"};
constexpr std::array<const char*, 5> companions = {"tokenizer_config.json", "special_tokens_map.json",
                                                   "added_tokens.json", "chat_template.jinja",
                                                   "chat_template.json"};

void copy(const fs::path& folder, const std::string& name, const fs::path& to) {
  const std::string text = read_model_file(folder, name);
  try {
    io::write_file(to, text.data(), text.size());
  } catch (const io::IoError& problem) {
    throw DataError(
        fmt::format("tokenizer file {} cannot be written ({}); make room or choose another `output`",
                    to.string(), problem.what()));
  }
}

/// The name of a lone file in a folder, whatever it is called elsewhere.
const char* name_of_file(const fs::path& file) {
  const auto name = file.filename().string();
  return name.ends_with(".json") ? "tokenizer.json" : "tokenizer.model";
}

}  // namespace

std::vector<TokenizerName> tokenizers_of(const fs::path& folder) {
  std::vector<TokenizerName> tokenizers;
  std::error_code ignored;
  for (const char* name : vocabularies) {
    if (!fs::exists(folder / name, ignored)) continue;
    try {
      tokenizers.push_back({name, sha256(read_model_file(folder, name))});
    } catch (const DataError&) {
      // The weights do without it; who asks for the tokenizer is told what is wrong with it.
    }
  }
  return tokenizers;
}

bool has_other_chat_template(const fs::path& folder) {
  std::vector<std::string> templates;
  std::error_code ignored;
  try {
    if (fs::exists(folder / "chat_template.jinja", ignored))
      templates.push_back(read_model_file(folder, "chat_template.jinja"));
    for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
      if (!fs::exists(folder / name, ignored)) continue;
      const auto config = parse_json_object(read_model_file(folder, name));
      const auto* one = find_json_member(config, "chat_template");
      if (one) templates.push_back(one->dump());  // a text, or several by name
    }
  } catch (const Error&) {
    return false;  // nobody can tell
  } catch (const JsonError&) {
    return false;
  }
  const auto is_other = [](const std::string& text) {
    return text.find("<|start_header_id|>") == std::string::npos;
  };
  return !templates.empty() && std::all_of(templates.begin(), templates.end(), is_other);
}

bool has_tokenizer(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : vocabularies)
    if (fs::exists(folder / name, ignored)) return true;
  return false;
}

bool is_tokenizer_file(std::string_view name) {
  return std::find(vocabularies.begin(), vocabularies.end(), name) != vocabularies.end() ||
         std::find(companions.begin(), companions.end(), name) != companions.end();
}

std::vector<std::string> copy_tokenizer_files(const fs::path& from, const fs::path& to) {
  std::error_code ignored;
  if (!fs::is_directory(from, ignored)) {
    // A named file stands for the one it links to.
    const fs::path file = fs::weakly_canonical(from, ignored);
    const char* name = name_of_file(from);
    copy(file.parent_path(), file.filename().string(), to / name);
    return {name};
  }
  if (!has_tokenizer(from))
    throw DataError(fmt::format(
        "folder {} holds no tokenizer (neither tokenizer.json nor tokenizer.model); name one that does",
        from.string()));
  std::vector<std::string> copied;
  const auto copy_if_there = [&](const char* name) {
    if (!fs::exists(from / name, ignored)) return;
    copy(from, name, to / name);
    copied.emplace_back(name);
  };
  for (const char* name : vocabularies) copy_if_there(name);
  for (const char* name : companions) copy_if_there(name);
  return copied;
}

}  // namespace llama3d
