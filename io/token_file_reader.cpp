#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"
#include "io/hdf5.hpp"
#include "io/token_file.hpp"
#include "io/token_format.hpp"

namespace llama3d {

using namespace io;

struct TokenFileReader::State {
  std::filesystem::path path;
  TokenFileInfo info;
  std::int64_t tokens = 0;
  std::vector<std::uint64_t> documents;
  Hdf5File file;
  Hdf5Dataset token_data, mask_data;

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(fmt::format("token file {} cannot be used ({}); make it anew with 'llama3d tokenize'",
                                path.string(), reason));
  }

  void open();
  void read_documents();
  void expect_range(std::int64_t begin, std::size_t count) const {
    LLAMA3D_EXPECT(begin >= 0 && begin + static_cast<std::int64_t>(count) <= tokens,
                   "tokens {} to {} of {} in {}", begin, begin + static_cast<std::int64_t>(count), tokens,
                   path.string());
  }
};

namespace {

// Length of a one-dimensional dataset of unsigned integers of `bytes` bytes.
std::int64_t column_length(hid_t dataset, std::size_t bytes, const char* name) {
  const auto type = own_hdf5<Hdf5Type>(H5Dget_type(dataset), "get a dataset's type");
  if (H5Tget_class(type.get()) != H5T_INTEGER || H5Tget_size(type.get()) != bytes) {
    throw Hdf5Error(fmt::format("/{} does not hold {}-byte integers", name, bytes));
  }
  const auto extent = extent_of(dataset);
  if (extent.size() != 1) throw Hdf5Error(fmt::format("/{} is not one-dimensional", name));
  return static_cast<std::int64_t>(extent[0]);
}

}  // namespace

void TokenFileReader::State::open() {
  file = open_file(path);
  const std::string format = format_of(file.get());
  if (format != token_file_format) {
    throw Hdf5Error(format.empty() ? "it is HDF5, but no token file" : "it is a '" + format + "' file");
  }
  const std::int64_t version = read_integer_attribute(file.get(), "version");
  if (version != token_file_version) {
    throw Hdf5Error(fmt::format("its version is {}, this program reads {}", version, token_file_version));
  }
  info.tokenizer = read_string_attribute(file.get(), "tokenizer");
  if (has_attribute(file.get(), "tokenizer_sha256"))
    info.tokenizer_hash = read_string_attribute(file.get(), "tokenizer_sha256");
  info.created_by = read_string_attribute(file.get(), "created_by");
  info.vocabulary_size = read_integer_attribute(file.get(), "vocabulary_size");
  if (info.vocabulary_size <= 0)
    throw Hdf5Error(fmt::format("its vocabulary size is {}", info.vocabulary_size));
  for (const char* name : {"tokens", "documents"}) {
    if (!has_link(file.get(), name)) throw Hdf5Error(fmt::format("/{} is missing", name));
  }
  token_data = open_dataset(file.get(), "tokens");
  tokens = column_length(token_data.get(), 4, "tokens");
  info.has_loss_mask = has_link(file.get(), "loss_mask");
  if (info.has_loss_mask) {
    mask_data = open_dataset(file.get(), "loss_mask");
    const std::int64_t length = column_length(mask_data.get(), 1, "loss_mask");
    if (length != tokens) throw Hdf5Error(fmt::format("{} loss mask values for {} tokens", length, tokens));
  }
}

void TokenFileReader::State::read_documents() {
  const auto dataset = open_dataset(file.get(), "documents");
  const std::int64_t length = column_length(dataset.get(), 8, "documents");
  if (length < 1) throw Hdf5Error("/documents is empty: writing it was not finished");
  documents.resize(static_cast<std::size_t>(length));
  read_range(dataset.get(), H5T_NATIVE_UINT64, 0, static_cast<hsize_t>(length), documents.data());
  if (documents.front() != 0 || documents.back() != static_cast<std::uint64_t>(tokens)) {
    throw Hdf5Error(fmt::format("/documents runs from {} to {}, but there are {} tokens", documents.front(),
                                documents.back(), tokens));
  }
  if (!std::is_sorted(documents.begin(), documents.end())) throw Hdf5Error("/documents is not ascending");
}

TokenFileReader::TokenFileReader(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  try {
    state_->open();
    state_->read_documents();
  } catch (const IoError& error) {
    state_->fail(error.what());
  }
}

TokenFileReader::~TokenFileReader() = default;
TokenFileReader::TokenFileReader(TokenFileReader&&) noexcept = default;

const TokenFileInfo& TokenFileReader::info() const {
  return state_->info;
}
const std::filesystem::path& TokenFileReader::path() const {
  return state_->path;
}
std::int64_t TokenFileReader::tokens() const {
  return state_->tokens;
}
const std::vector<std::uint64_t>& TokenFileReader::documents() const {
  return state_->documents;
}

void TokenFileReader::read(std::int64_t begin, std::span<std::uint32_t> out) const {
  const State& s = *state_;
  s.expect_range(begin, out.size());
  try {
    read_range(s.token_data.get(), H5T_NATIVE_UINT32, static_cast<hsize_t>(begin), out.size(), out.data());
  } catch (const IoError& error) {
    s.fail(fmt::format("tokens {} to {} are damaged: {}", begin, begin + std::ssize(out), error.what()));
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] < s.info.vocabulary_size) continue;
    const auto place = begin + static_cast<std::int64_t>(i);
    if (out[i] == unwritten_token) s.fail(fmt::format("token {} was never written", place));
    s.fail(fmt::format("token {} is {}, but the vocabulary has {}", place, out[i], s.info.vocabulary_size));
  }
}

void TokenFileReader::read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const {
  const State& s = *state_;
  s.expect_range(begin, out.size());
  if (!s.info.has_loss_mask) {
    std::fill(out.begin(), out.end(), std::uint8_t{1});
    return;
  }
  try {
    read_range(s.mask_data.get(), H5T_NATIVE_UINT8, static_cast<hsize_t>(begin), out.size(), out.data());
  } catch (const IoError& error) {
    s.fail(fmt::format("loss mask {} to {} is damaged: {}", begin, begin + std::ssize(out), error.what()));
  }
  const auto bad = std::find_if(out.begin(), out.end(), [](std::uint8_t value) { return value > 1; });
  if (bad != out.end()) {
    s.fail(fmt::format("loss mask {} is {}, not 0 or 1", begin + (bad - out.begin()), int{*bad}));
  }
}

}  // namespace llama3d
