#pragma once

#include "data/tokenizer/special_tokens.hpp"
#include "data/tokenizer/tokenizer.hpp"

namespace llama3d {

/// Ids 0 to 255 are the bytes themselves, 256 begin of text, 257 end of text, 258 padding. Any text, valid
/// UTF-8 or not, survives encode and decode unchanged.
class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer();
  std::string name() const override { return "bytes"; }
  std::string file_hash() const override { return {}; }
  std::int64_t vocabulary_size() const override { return 259; }
  std::uint32_t begin_of_text() const override { return 256; }
  std::uint32_t end_of_text() const override { return 257; }
  std::uint32_t padding() const override { return 258; }
  std::optional<std::uint32_t> special_token(std::string_view name) const override;
  bool needs_utf8() const override { return false; }
  void encode(std::string_view text, std::vector<std::uint32_t>& tokens,
              const EncodeOptions& options) const override;
  std::size_t last_cut(std::string_view text) const override { return text.size(); }
  /// Ids above 255 vanish, those past the vocabulary too: a model may have more rows than the tokenizer has
  /// tokens.
  std::string decode(std::span<const std::uint32_t> tokens) const override;

 private:
  SpecialTokens special_;
};

}  // namespace llama3d
