#include "data/tokenizer.hpp"

#include "base/error.hpp"
#include "data/byte_tokenizer.hpp"

namespace llama3d {

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  throw ConfigurationError(
      fmt::format("tokenizer \"{}\" is unknown (there is no such tokenizer); use bytes", name));
}

}  // namespace llama3d
