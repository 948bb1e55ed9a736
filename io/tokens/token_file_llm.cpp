#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "io/tokens/flat_tokens.hpp"
#include "io/tokens/token_source.hpp"

namespace llama3d::io {
namespace {

constexpr std::int64_t header_bytes = 1024;
constexpr std::int32_t magic_gpt2 = 20240520, magic_llama3 = 20240801;
constexpr std::string_view magic_llmq = "BIN.TOK\n";

using Header = std::array<std::int32_t, header_bytes / 4>;

bool has_llmq_magic(const Header& header) {
  return std::memcmp(header.data(), magic_llmq.data(), magic_llmq.size()) == 0;
}

Header read_header(const std::filesystem::path& path) {
  Header header;
  read_at(open_descriptor(path, OpenMode::read).get(), header.data(), header_bytes, 0);
  return header;
}

void expect_version(std::int32_t version, std::initializer_list<std::int32_t> known) {
  if (std::find(known.begin(), known.end(), version) == known.end())
    throw IoError(fmt::format("its version {} is unknown", version));
}

void expect_size(const std::filesystem::path& path, std::int64_t expected) {
  if (const std::int64_t size = size_of_file(path); size != expected)
    throw IoError(fmt::format("{}: it has {} bytes, where its header tells of {}",
                              size < expected ? "truncated" : "damaged", size, expected));
}

class LlmcTokens final : public TokenSource {
 public:
  LlmcTokens(const std::filesystem::path& path, const Header& header) {
    const bool llama3 = header[0] == magic_llama3;
    expect_version(header[1], {llama3 ? 7 : 1});
    tokens = header[2];
    const int bytes = llama3 ? 4 : 2;
    tokens_ = FlatIntegers(path, header_bytes, tokens, bytes, false);
    expect_size(path, header_bytes + tokens * bytes);
    info.tokenizer = "unknown";
    info.created_by = "llm.c";
    find_documents(llama3 ? 128000 : 50256);
  }

  void read(std::int64_t begin, std::span<std::uint32_t> out) const override {
    tokens_.read_tokens(begin, out);
  }

 private:
  void find_documents(std::int64_t leading) {
    documents.push_back(0);
    IntegerStream stream(tokens_);
    for (std::int64_t i = 0; i < tokens; ++i)
      if (stream.next() == leading && i > 0) documents.push_back(static_cast<std::uint64_t>(i));
    if (tokens > 0) documents.push_back(static_cast<std::uint64_t>(tokens));
  }

  FlatIntegers tokens_;
};

class LlmqTokens final : public TokenSource {
 public:
  LlmqTokens(const std::filesystem::path& path, const Header& header) {
    const std::int32_t version = header[2], bytes = header[3];
    expect_version(version, {1, 2});
    if (bytes != 4) throw IoError(fmt::format("its tokens are of {} bytes, not of 4", bytes));
    tokens = header[4];
    info.has_loss_mask = version >= 2 && header[6] != 0;
    tokens_ = FlatIntegers(path, header_bytes, tokens, bytes, true);
    const std::int64_t mask_at = header_bytes + tokens * bytes;
    const std::int64_t mask_bytes = info.has_loss_mask ? (tokens + 7) / 8 : 0;
    expect_size(path, mask_at + mask_bytes);
    mask_ = FlatIntegers(path, mask_at, mask_bytes, 1, false);
    info.tokenizer = "unknown";
    info.created_by = "llm.q";
    info.has_documents = false;
    documents = {0, static_cast<std::uint64_t>(tokens)};
  }

  void read(std::int64_t begin, std::span<std::uint32_t> out) const override {
    tokens_.read_tokens(begin, out);
  }

  void read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const override {
    if (out.empty()) return;
    const std::int64_t first = begin / 8, last = (begin + std::ssize(out) - 1) / 8;
    std::vector<std::int64_t> bytes(static_cast<std::size_t>(last - first + 1));
    mask_.read(first, bytes);
    for (std::int64_t i = 0; i < std::ssize(out); ++i) {
      const std::int64_t bit = begin + i - 8 * first;
      out[static_cast<std::size_t>(i)] = bytes[static_cast<std::size_t>(bit / 8)] >> bit % 8 & 1;
    }
  }

 private:
  FlatIntegers tokens_, mask_;
};

}  // namespace

bool is_llm_file(const std::filesystem::path& path) {
  if (size_of_file(path) < header_bytes) return false;
  const Header header = read_header(path);
  return has_llmq_magic(header) || header[0] == magic_gpt2 || header[0] == magic_llama3;
}

std::unique_ptr<TokenSource> open_llm_tokens(const std::filesystem::path& path) {
  const Header header = read_header(path);
  if (has_llmq_magic(header)) return std::make_unique<LlmqTokens>(path, header);
  return std::make_unique<LlmcTokens>(path, header);
}

}  // namespace llama3d::io
