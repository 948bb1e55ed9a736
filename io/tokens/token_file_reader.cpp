#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/token_format.hpp"
#include "io/tokens/token_source.hpp"

namespace llama3d {

using namespace io;

namespace {

std::unique_ptr<TokenSource> open_source(const std::filesystem::path& path) {
  if (is_megatron_file(path)) return open_megatron_tokens(path);
  if (is_llm_file(path)) return open_llm_tokens(path);
  return open_hdf5_tokens(path);
}

}  // namespace

namespace io {

void TokenSource::read_loss_mask(std::int64_t, std::span<std::uint8_t>) const {
  throw IoError("it has no loss mask");
}

bool is_foreign_token_file(const std::filesystem::path& path) {
  return is_megatron_file(path) || is_llm_file(path);
}

}  // namespace io

struct TokenFileReader::State {
  std::filesystem::path path;
  std::unique_ptr<TokenSource> source;

  bool foreign = false;

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(fmt::format("token file {} cannot be used ({}); {} with 'llama3d tokenize'",
                                path.string(), reason,
                                foreign ? "copy it anew, or make one" : "make it anew"));
  }
  void expect_range(std::int64_t begin, std::size_t count) const {
    LLAMA3D_EXPECT(begin >= 0 && begin + static_cast<std::int64_t>(count) <= source->tokens,
                   "tokens {} to {} of {} in {}", begin, begin + static_cast<std::int64_t>(count),
                   source->tokens, path.string());
  }
};

TokenFileReader::TokenFileReader(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  try {
    state_->foreign = is_foreign_token_file(path);
    state_->source = open_source(path);
  } catch (const IoError& error) {
    state_->fail(error.what());
  }
}

TokenFileReader::~TokenFileReader() = default;
TokenFileReader::TokenFileReader(TokenFileReader&&) noexcept = default;

const TokenFileInfo& TokenFileReader::info() const {
  return state_->source->info;
}
const std::filesystem::path& TokenFileReader::path() const {
  return state_->path;
}
std::int64_t TokenFileReader::tokens() const {
  return state_->source->tokens;
}
const std::vector<std::uint64_t>& TokenFileReader::documents() const {
  return state_->source->documents;
}

const std::vector<std::string>& TokenFileReader::without_checksums() const {
  return state_->source->without_checksums;
}

void TokenFileReader::read(std::int64_t begin, std::span<std::uint32_t> out) const {
  const State& s = *state_;
  s.expect_range(begin, out.size());
  try {
    s.source->read(begin, out);
  } catch (const IoError& error) {
    s.fail(fmt::format("tokens {} to {} are damaged: {}", begin, begin + std::ssize(out), error.what()));
  }
  const std::int64_t vocabulary = s.source->info.vocabulary_size;
  if (vocabulary == 0) return;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] < vocabulary) continue;
    const auto place = begin + static_cast<std::int64_t>(i);
    if (out[i] == unwritten_token) s.fail(fmt::format("token {} was never written", place));
    s.fail(fmt::format("token {} is {}, but the vocabulary has {}", place, out[i], vocabulary));
  }
}

void TokenFileReader::read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const {
  const State& s = *state_;
  s.expect_range(begin, out.size());
  if (!s.source->info.has_loss_mask) {
    std::fill(out.begin(), out.end(), std::uint8_t{1});
    return;
  }
  try {
    s.source->read_loss_mask(begin, out);
  } catch (const IoError& error) {
    s.fail(fmt::format("loss mask {} to {} is damaged: {}", begin, begin + std::ssize(out), error.what()));
  }
  const auto bad = std::find_if(out.begin(), out.end(), [](std::uint8_t value) { return value > 1; });
  if (bad != out.end()) {
    s.fail(fmt::format("loss mask {} is {}, not 0 or 1", begin + (bad - out.begin()), int{*bad}));
  }
}

}  // namespace llama3d
