#include "data/tokenizer/bpe_tokenizer.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "data/tokenizer/pre_tokenizer.hpp"

namespace llama3d {
namespace {

std::int64_t size_of(const TokenizerDefinition& definition) {
  std::size_t size = definition.vocabulary.tokens.size();
  for (const SpecialToken& token : definition.special_tokens)
    size = std::max<std::size_t>(size, token.id + 1);
  return static_cast<std::int64_t>(size);
}

}  // namespace

BpeTokenizer::BpeTokenizer(TokenizerDefinition definition)
    : name_(std::move(definition.name)),
      file_hash_(std::move(definition.file_hash)),
      doubt_(std::move(definition.doubt)),
      vocabulary_size_(size_of(definition)),
      special_(std::move(definition.special_tokens)),
      pairs_(std::move(definition.vocabulary)) {
  const auto required = [&](const char* name) {
    const auto id = special_.find(name);
    LLAMA3D_EXPECT(id, "{} has no {}", name_, name);
    return *id;
  };
  begin_of_text_ = required("<|begin_of_text|>");
  end_of_text_ = required("<|end_of_text|>");
  padding_ = special_.find("<|finetune_right_pad_id|>")
                 .value_or(special_.find("<|reserved_special_token_2|>").value_or(end_of_text_));
}

std::optional<std::uint32_t> BpeTokenizer::special_token(std::string_view name) const {
  return special_.find(name);
}

void BpeTokenizer::encode(std::string_view text, std::vector<std::uint32_t>& tokens,
                          const EncodeOptions& options) const {
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == std::string_view::npos) return encode_valid(text, tokens, options.special_tokens);
  if (options.invalid_utf8 == InvalidUtf8::error)
    throw DataError(fmt::format("a text is no valid UTF-8 (byte 0x{:02X} at offset {}); have it replaced",
                                static_cast<unsigned char>(text[bad]), bad));
  encode_valid(replace_invalid_utf8(text), tokens, options.special_tokens);
}

void BpeTokenizer::encode_valid(std::string_view text, std::vector<std::uint32_t>& tokens,
                                bool special_tokens) const {
  special_.split(text, special_tokens, tokens, [&](std::string_view part) {
    for (std::size_t begin = 0; begin < part.size();) {
      const std::size_t end = piece_end(part, begin);
      pairs_.encode(part.substr(begin, end - begin), tokens);
      begin = end;
    }
  });
}

std::size_t BpeTokenizer::last_cut(std::string_view text) const {
  return last_piece_boundary(text);
}

std::string BpeTokenizer::decode(std::span<const std::uint32_t> tokens) const {
  std::string text;
  for (const std::uint32_t token : tokens) text += pairs_.text(token);
  return text;
}

std::string BpeTokenizer::transcript(std::span<const std::uint32_t> tokens) const {
  std::string text;
  for (const std::uint32_t token : tokens) {
    const std::string_view name = special_.name_of(token);
    if (name.empty())
      text += pairs_.text(token);
    else
      text += name;
  }
  return text;
}

}  // namespace llama3d
