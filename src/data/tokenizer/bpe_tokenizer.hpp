#pragma once

#include "data/tokenizer/byte_pairs.hpp"
#include "data/tokenizer/special_tokens.hpp"
#include "data/tokenizer/tokenizer.hpp"
#include "data/tokenizer/tokenizer_file.hpp"

namespace llama3d {

/// Llama 3's byte-level BPE.
class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerDefinition definition);
  std::string name() const override { return name_; }
  std::string file_hash() const override { return file_hash_; }
  std::string doubt() const override { return doubt_; }
  /// One more than the largest id.
  std::int64_t vocabulary_size() const override { return vocabulary_size_; }
  std::uint32_t begin_of_text() const override { return begin_of_text_; }
  std::uint32_t end_of_text() const override { return end_of_text_; }
  /// What Llama 3.1 fine-tuning pads with, or the same id of Llama 3; end of text where there is neither.
  std::uint32_t padding() const override { return padding_; }
  std::optional<std::uint32_t> special_token(std::string_view name) const override;
  bool needs_utf8() const override { return true; }
  void encode(std::string_view text, std::vector<std::uint32_t>& tokens,
              const EncodeOptions& options) const override;
  std::size_t last_cut(std::string_view text) const override;
  std::string decode(std::span<const std::uint32_t> tokens) const override;
  std::string transcript(std::span<const std::uint32_t> tokens) const override;

 private:
  void encode_valid(std::string_view text, std::vector<std::uint32_t>& tokens, bool special_tokens) const;

  std::string name_, file_hash_, doubt_;
  std::int64_t vocabulary_size_ = 0;
  SpecialTokens special_;
  std::uint32_t begin_of_text_ = 0, end_of_text_ = 0, padding_ = 0;
  BytePairs pairs_;
};

}  // namespace llama3d
