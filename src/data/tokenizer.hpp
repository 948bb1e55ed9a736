#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;
  virtual std::int64_t vocabulary_size() const = 0;
  virtual std::uint32_t begin_of_text() const = 0;
  virtual std::uint32_t end_of_text() const = 0;
  virtual std::uint32_t padding() const = 0;
  /// Appends the tokens of `text`, without special tokens.
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& tokens) const = 0;
  /// The text of the tokens; special tokens vanish.
  virtual std::string decode(std::span<const std::uint32_t> tokens) const = 0;
};

/// `tokenize --tokenizer`: "bytes". Throws ConfigurationError for anything else.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace llama3d
