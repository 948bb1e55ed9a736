#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "data/tokenizer/tokenizer_file.hpp"

namespace llama3d {
namespace {

constexpr std::size_t llama3_ranks = 128'000, special_count = 256;
/// Ids that Llama 3 reserves and later versions use, by the names they have there.
constexpr std::pair<const char*, std::uint32_t> later_names[] = {
    {"<|finetune_right_pad_id|>", 4}, {"<|step_id|>", 5}, {"<|eom_id|>", 8}, {"<|python_tag|>", 10}};

constexpr std::array<signed char, 256> make_base64_values() {
  std::array<signed char, 256> values{};
  for (auto& value : values) value = -1;
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < digits.size(); ++i)
    values[static_cast<unsigned char>(digits[i])] = static_cast<signed char>(i);
  return values;
}

constexpr std::array<signed char, 256> base64_values = make_base64_values();

/// Those of Llama 3 come after the ranks, in Meta's order.
std::vector<SpecialToken> special_tokens_after(std::uint32_t ranks) {
  std::vector<SpecialToken> tokens;
  std::uint32_t next = ranks;
  int reserved = 0;
  const auto add = [&](std::string name) { tokens.push_back({std::move(name), next++}); };
  const auto reserve = [&] { add(fmt::format("<|reserved_special_token_{}|>", reserved++)); };
  add("<|begin_of_text|>");
  add("<|end_of_text|>");
  for (int i = 0; i < 4; ++i) reserve();
  add("<|start_header_id|>");
  add("<|end_header_id|>");
  reserve();
  add("<|eot_id|>");
  while (tokens.size() < special_count) reserve();
  for (const auto& [name, place] : later_names) tokens.push_back({name, ranks + place});
  return tokens;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r'; });
}

[[noreturn]] void refuse_line(std::size_t number, std::string_view line) {
  const std::string_view shown = line.substr(0, 40);
  throw std::runtime_error(fmt::format("line {} is no base64 and rank: {}", number,
                                       is_printable(shown) ? fmt::format("\"{}\"", shown) : "binary"));
}

}  // namespace

bool decode_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    int value = base64_values[static_cast<unsigned char>(text[i])];
    if (i >= text.size() - padding) value = 0;
    if (value < 0) return false;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (i % 4 != 3) continue;
    for (const int shift : {16, 8, 0}) bytes += static_cast<char>(static_cast<unsigned char>(bits >> shift));
    bits = 0;
  }
  bytes.resize(bytes.size() - padding);
  return true;
}

TokenizerDefinition parse_tiktoken(std::string_view text) {
  if (!is_printable(text.substr(0, 64)))
    throw std::runtime_error("it is binary: another kind of model, as Llama 2's?");
  TokenizerDefinition definition;
  std::vector<std::string>& tokens = definition.vocabulary.tokens;
  std::string token;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() && text.empty()) break;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || !decode_base64(line.substr(0, space), token))
      refuse_line(number, line);
    std::uint32_t rank = 0;
    const auto [after, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
    if (error != std::errc() || after != line.data() + line.size()) refuse_line(number, line);
    if (rank != tokens.size())
      throw std::runtime_error(fmt::format("line {} has rank {}, not {}", number, rank, tokens.size()));
    tokens.push_back(token);
  }
  const TokenIndex index(tokens);
  if (const int byte = missing_byte(index); byte >= 0)
    throw std::runtime_error(fmt::format("byte 0x{:02X} is no token: cut short?", byte));
  for (std::size_t id = 0; id < tokens.size(); ++id)
    if (const std::uint32_t first = index.find(tokens[id]); first != id)
      throw std::runtime_error(fmt::format("ranks {} and {} are the same token", first, id));
  if (tokens.size() != llama3_ranks)
    definition.doubt =
        fmt::format("it has {} ranks, where Llama 3's has {}: cut short?", tokens.size(), llama3_ranks);
  definition.vocabulary.merges = merges_by_id(tokens);
  definition.special_tokens = special_tokens_after(static_cast<std::uint32_t>(tokens.size()));
  return definition;
}

}  // namespace llama3d
