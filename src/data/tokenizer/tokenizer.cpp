#include "data/tokenizer/tokenizer.hpp"

#include <stdexcept>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "data/tokenizer/bpe_tokenizer.hpp"
#include "data/tokenizer/byte_tokenizer.hpp"
#include "data/tokenizer/tokenizer_file.hpp"

namespace llama3d {

InvalidUtf8 invalid_utf8_from(std::string_view word) {
  if (word == "error") return InvalidUtf8::error;
  if (word == "replace") return InvalidUtf8::replace;
  throw ConfigurationError(
      fmt::format("`invalid_utf8 {}` is unknown (no such choice); use error or replace", word));
}

std::string_view word_of(InvalidUtf8 choice) {
  return choice == InvalidUtf8::error ? "error" : "replace";
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  std::error_code ignored;
  if (name.empty() || !std::filesystem::exists(name, ignored))
    throw ConfigurationError(fmt::format(
        "tokenizer \"{}\" is unknown (neither bytes nor a file or folder that exists); use bytes, "
        "a tokenizer.model, a tokenizer.json or a folder with one",
        name));
  return std::make_unique<BpeTokenizer>(read_tokenizer_file(name));
}

std::filesystem::path tokenizer_file(const std::string& name) {
  return name == "bytes" ? std::filesystem::path() : find_tokenizer_file(name);
}

}  // namespace llama3d
