#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

/// What becomes of bytes that are no UTF-8.
enum class InvalidUtf8 {
  error,
  replace,  ///< by U+FFFD
};

InvalidUtf8 invalid_utf8_from(std::string_view word);
std::string_view word_of(InvalidUtf8 choice);

struct EncodeOptions {
  /// Names of special tokens in the text, as "<|eot_id|>", become those tokens. Off: they are text like any
  /// other, so that data can't end a turn.
  bool special_tokens = false;
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// "bytes", or the name of the tokenizer's file.
  virtual std::string name() const = 0;
  /// SHA-256 of the tokenizer's file, as sha256sum prints it; empty for one without a file.
  virtual std::string file_hash() const = 0;
  /// Why it may not be the tokenizer that was meant, for a warning; empty: nothing.
  virtual std::string doubt() const { return {}; }
  virtual std::int64_t vocabulary_size() const = 0;
  virtual std::uint32_t begin_of_text() const = 0;
  virtual std::uint32_t end_of_text() const = 0;
  virtual std::uint32_t padding() const = 0;
  /// By its name, as "<|eot_id|>".
  virtual std::optional<std::uint32_t> special_token(std::string_view name) const = 0;
  /// Whether bytes that are no UTF-8 are a matter for EncodeOptions; else they are text too.
  virtual bool needs_utf8() const = 0;
  /// Appends the tokens of `text`, without begin and end of text. Throws DataError, with the offset, for
  /// invalid UTF-8 where it is needed and not replaced. Threads may share a tokenizer.
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& tokens,
                      const EncodeOptions& options = {}) const = 0;
  /// The last place where `text` may be cut, whatever follows it: the tokens of both parts, encoded each by
  /// itself without special tokens, are those of the whole. 0 when there is none.
  virtual std::size_t last_cut(std::string_view text) const = 0;
  /// The text of the tokens; special tokens vanish.
  virtual std::string decode(std::span<const std::uint32_t> tokens) const = 0;
  /// The same, but special tokens stand there by their names, where they have one.
  virtual std::string transcript(std::span<const std::uint32_t> tokens) const { return decode(tokens); }
};

/// `tokenize --tokenizer`: "bytes", a tokenizer.model or tokenizer.json of Llama 3, or a folder that holds
/// one. Throws ConfigurationError for what is none of these, DataError for a damaged or foreign file.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);
/// The file that it reads; empty for "bytes". Throws DataError for a folder without one.
std::filesystem::path tokenizer_file(const std::string& name);

}  // namespace llama3d
