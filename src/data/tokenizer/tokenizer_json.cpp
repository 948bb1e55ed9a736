#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/json.hpp"
#include "base/printable.hpp"
#include "base/utf8.hpp"
#include "data/tokenizer/pre_tokenizer.hpp"
#include "data/tokenizer/tokenizer_file.hpp"

namespace llama3d {
namespace {

using Json = nlohmann::json;

/// Far above any vocabulary: what a damaged id must not make us allocate.
constexpr std::int64_t largest_id = std::int64_t{1} << 24;

[[noreturn]] void refuse(const std::string& reason) {
  throw std::runtime_error(reason);
}

const Json& null_json() {
  static const Json null;
  return null;
}

/// A member, or null where there is none.
const Json& member(const Json& object, const char* name) {
  if (!object.is_object()) return null_json();
  const auto found = object.find(name);
  return found == object.end() ? null_json() : *found;
}

bool is_text(const Json& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

bool is_true(const Json& value) {
  return value.is_boolean() && value.get<bool>();
}

std::uint32_t id_of(const Json& value, const std::string& name) {
  const auto id = integer_within(value, 0, largest_id);
  return static_cast<std::uint32_t>(
      id ? *id : json_integer(value, fmt::format("the id of \"{}\"", printable(name, 40)), 0, largest_id));
}

/// How the vocabulary spells bytes: printable ones as themselves, the others from U+0100 on, in their order.
class ByteSpelling {
 public:
  ByteSpelling() {
    bytes_.fill(-1);
    std::size_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      bytes_[itself ? static_cast<std::size_t>(byte) : next++] = byte;
    }
  }
  /// False when something in `spelled`, valid UTF-8, stands for no byte.
  bool read(std::string_view spelled, std::string& bytes) const {
    bytes.clear();
    for (std::size_t begin = 0; begin < spelled.size();) {
      const auto [code_point, length] = character_at(spelled.data() + begin);
      if (code_point >= bytes_.size() || bytes_[code_point] < 0) return false;
      bytes += static_cast<char>(static_cast<unsigned char>(bytes_[code_point]));
      begin += length;
    }
    return true;
  }

 private:
  std::array<int, 0x144> bytes_;  ///< by code point
};

/// Refuses all that would make other pieces than Llama 3 does.
void check_pipeline(const Json& root) {
  if (!member(root, "normalizer").is_null()) refuse("it has a normalizer, which Llama 3 has not");
  const Json& pre_tokenizer = member(root, "pre_tokenizer");
  const Json& steps = member(pre_tokenizer, "pretokenizers");
  if (!is_text(member(pre_tokenizer, "type"), "Sequence") || !steps.is_array() || steps.size() != 2)
    refuse("its pre-tokenizer is not Llama 3's, a split and a byte-level step");
  const Json &split = steps[0], &bytes = steps[1];
  if (!is_text(member(split, "type"), "Split") || !is_text(member(split, "behavior"), "Isolated") ||
      is_true(member(split, "invert")) ||
      !is_text(member(member(split, "pattern"), "Regex"), llama3_expression))
    refuse("its pre-tokenizer splits by another expression than Llama 3's");
  if (!is_text(member(bytes, "type"), "ByteLevel") || is_true(member(bytes, "add_prefix_space")) ||
      !member(bytes, "use_regex").is_boolean() || is_true(member(bytes, "use_regex")))
    refuse("its pre-tokenizer's byte-level step is not Llama 3's");
}

void check_model(const Json& model) {
  if (!is_text(member(model, "type"), "BPE"))
    refuse(fmt::format("its model is {}, not a BPE", json_excerpt(member(model, "type"))));
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix", "unk_token", "dropout"}) {
    const Json& value = member(model, name);
    if (!value.is_null() && !is_text(value, "") && value != 0.0)
      refuse(fmt::format("its model has a {}, which Llama 3's has not", name));
  }
  if (is_true(member(model, "byte_fallback"))) refuse("its model falls back to bytes: not a byte-level one");
}

std::vector<std::string> read_tokens(const Json& vocabulary) {
  if (!vocabulary.is_object() || vocabulary.empty()) refuse("its model has no vocabulary");
  static const ByteSpelling spelling;
  std::vector<std::string> tokens;
  std::string bytes;
  for (const auto& [name, value] : vocabulary.items()) {
    const std::uint32_t id = id_of(value, name);
    if (name.empty() || !spelling.read(name, bytes))
      refuse(fmt::format("token {} is not spelled in bytes: not a byte-level vocabulary", id));
    if (id >= tokens.size()) tokens.resize(std::max<std::size_t>(id + 1, vocabulary.size()));
    if (!tokens[id].empty()) refuse(fmt::format("two tokens have the id {}", id));
    tokens[id] = bytes;
  }
  return tokens;
}

/// "a b" or ["a", "b"].
std::pair<std::string_view, std::string_view> sides_of(const Json& merge, std::size_t number) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos)
      return {text.substr(0, space), text.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  refuse(fmt::format("merge {} is no pair of tokens", number));
}

std::vector<Merge> read_merges(const Json& list, const std::vector<std::string>& tokens) {
  if (!list.is_array()) refuse("its model has no merges");
  static const ByteSpelling spelling;
  const TokenIndex index(tokens);
  std::vector<Merge> merges;
  merges.reserve(list.size());
  std::string left, right;
  for (const Json& merge : list) {
    const auto sides = sides_of(merge, merges.size());
    if (!spelling.read(sides.first, left) || !spelling.read(sides.second, right))
      refuse(fmt::format("merge {} is not spelled in bytes", merges.size()));
    const Merge made{index.find(left), index.find(right), static_cast<std::uint32_t>(merges.size()),
                     index.find(left + right)};
    if (made.left == TokenIndex::none || made.right == TokenIndex::none || made.merged == TokenIndex::none)
      refuse(fmt::format("merge {} is of tokens that the vocabulary has not", merges.size()));
    merges.push_back(made);
  }
  return merges;
}

std::vector<SpecialToken> read_special_tokens(const Json& list, const std::vector<std::string>& tokens) {
  std::vector<SpecialToken> special;
  if (!list.is_array()) refuse("it has no added_tokens");
  for (const Json& added : list) {
    const Json& content = member(added, "content");
    if (!content.is_string() || content.get_ref<const std::string&>().empty())
      refuse("an added token has no content");
    const std::string& name = content.get_ref<const std::string&>();
    const std::uint32_t id = id_of(member(added, "id"), name);
    if (!is_true(member(added, "special")))
      refuse(fmt::format("added token {} is not special, but a word to be found in any text", id));
    for (const char* rule : {"single_word", "lstrip", "rstrip"})
      if (is_true(member(added, rule))) refuse(fmt::format("added token {} has the rule {}", id, rule));
    if (id < tokens.size() && !tokens[id].empty() && tokens[id] != name)
      refuse(fmt::format("added token {} has the id of another token", id));
    special.push_back({name, id});
  }
  for (const char* name : {"<|begin_of_text|>", "<|end_of_text|>"})
    if (std::none_of(special.begin(), special.end(), [&](const auto& token) { return token.name == name; }))
      refuse(fmt::format("it has no token {}", name));
  return special;
}

}  // namespace

TokenizerDefinition parse_tokenizer_json(std::string_view text) {
  const Json root = parse_json(text);
  const Json& model = member(root, "model");
  if (model.is_null()) refuse("it is JSON, but no tokenizer");
  check_model(model);
  check_pipeline(root);
  TokenizerDefinition definition;
  Vocabulary& vocabulary = definition.vocabulary;
  vocabulary.tokens = read_tokens(member(model, "vocab"));
  if (const int byte = missing_byte(TokenIndex(vocabulary.tokens)); byte >= 0)
    refuse(fmt::format("byte 0x{:02X} is no token", byte));
  vocabulary.merges = read_merges(member(model, "merges"), vocabulary.tokens);
  vocabulary.whole_pieces_first = is_true(member(model, "ignore_merges"));
  definition.special_tokens = read_special_tokens(member(root, "added_tokens"), vocabulary.tokens);
  return definition;
}

}  // namespace llama3d
