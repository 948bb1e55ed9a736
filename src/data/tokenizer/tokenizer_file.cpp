#include "data/tokenizer/tokenizer_file.hpp"

#include <stdexcept>
#include <system_error>

#include "base/error.hpp"
#include "base/model_folder.hpp"
#include "base/sha256.hpp"

namespace llama3d {
namespace {

/// Several times what any Llama 3 tokenizer has.
constexpr std::uintmax_t largest_file = std::uintmax_t{256} << 20;

std::string read_whole(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw std::runtime_error("it is no regular file");
  std::string text = read_file(path, largest_file);
  if (text.empty()) throw std::runtime_error("it is empty");
  return text;
}

bool is_json(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && text[first] == '{';
}

}  // namespace

std::filesystem::path find_tokenizer_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return path;
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (std::filesystem::exists(path / name, ignored)) return model_file(path, name);
  throw DataError(fmt::format(
      "folder {} holds no tokenizer (neither tokenizer.json nor tokenizer.model); name the folder "
      "or file that does",
      path.string()));
}

TokenizerDefinition read_tokenizer_file(const std::filesystem::path& path) {
  const std::filesystem::path file = find_tokenizer_file(path);
  try {
    const std::string text = read_whole(file);
    TokenizerDefinition definition = is_json(text) ? parse_tokenizer_json(text) : parse_tiktoken(text);
    definition.name = file.filename().string();
    definition.file_hash = sha256(text);
    return definition;
  } catch (const std::runtime_error& error) {
    throw DataError(
        fmt::format("tokenizer {} cannot be used ({}); give Llama 3's tokenizer.model or tokenizer.json",
                    file.string(), error.what()));
  }
}

}  // namespace llama3d
