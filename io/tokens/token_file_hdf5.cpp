#include <fmt/format.h>

#include <algorithm>

#include "io/hdf5/hdf5.hpp"
#include "io/tokens/token_format.hpp"
#include "io/tokens/token_source.hpp"

namespace llama3d::io {
namespace {

// Length of a one-dimensional dataset of unsigned integers of `bytes` bytes.
std::int64_t column_length(hid_t dataset, std::size_t bytes, const char* name) {
  const auto type = own_hdf5<Hdf5Type>(H5Dget_type(dataset), "get a dataset's type");
  if (H5Tget_class(type.get()) != H5T_INTEGER || H5Tget_size(type.get()) != bytes) {
    throw Hdf5Error(fmt::format("/{} does not hold {}-byte integers", name, bytes));
  }
  const auto extent = extent_of(dataset);
  if (extent.size() != 1) throw Hdf5Error(fmt::format("/{} is not one-dimensional", name));
  // No filter of HDF5 packs tighter than deflate, a thousand to one; what was never written takes no room.
  constexpr hsize_t tightest = 1100;
  if (extent[0] / tightest > H5Dget_storage_size(dataset))
    throw Hdf5Error(fmt::format("/{} says that it has {} values, of which the file holds a part at most",
                                name, extent[0]));
  return static_cast<std::int64_t>(extent[0]);
}

bool has_checksums(hid_t dataset) {
  const auto creation = own_hdf5<Hdf5Properties>(H5Dget_create_plist(dataset), "get a dataset's properties");
  for (int i = 0; i < H5Pget_nfilters(creation.get()); ++i) {
    unsigned flags = 0, settings = 0;
    std::size_t values = 0;
    if (H5Pget_filter2(creation.get(), static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr,
                       &settings) == H5Z_FILTER_FLETCHER32)
      return true;
  }
  return false;
}

class Hdf5Tokens final : public TokenSource {
 public:
  explicit Hdf5Tokens(const std::filesystem::path& path) {
    open(path);
    read_documents();
    without_checksums.clear();
    for (const char* name : {"tokens", "documents", "loss_mask"}) {
      if (has_link(file_.get(), name) && !has_checksums(open_dataset(file_.get(), name).get()))
        without_checksums.emplace_back(name);
    }
  }
  void read(std::int64_t begin, std::span<std::uint32_t> out) const override;
  void read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const override;

 private:
  void open(const std::filesystem::path& path);
  void read_documents();

  Hdf5File file_;
  Hdf5Dataset token_data_, mask_data_;
};

void Hdf5Tokens::open(const std::filesystem::path& path) {
  file_ = open_file(path);
  const std::string format = format_of(file_.get());
  if (format != token_file_format) {
    throw Hdf5Error(format.empty() ? "it is HDF5, but no token file" : "it is a '" + format + "' file");
  }
  const std::int64_t version = read_integer_attribute(file_.get(), "version");
  if (version != token_file_version) {
    throw Hdf5Error(fmt::format("its version is {}, this program reads {}", version, token_file_version));
  }
  info.tokenizer = read_string_attribute(file_.get(), "tokenizer");
  if (has_attribute(file_.get(), "tokenizer_sha256"))
    info.tokenizer_hash = read_string_attribute(file_.get(), "tokenizer_sha256");
  info.created_by = read_string_attribute(file_.get(), "created_by");
  info.vocabulary_size = read_integer_attribute(file_.get(), "vocabulary_size");
  if (info.vocabulary_size <= 0)
    throw Hdf5Error(fmt::format("its vocabulary size is {}", info.vocabulary_size));
  if (has_attribute(file_.get(), "largest_token")) {
    info.largest_token = read_integer_attribute(file_.get(), "largest_token");
    if (info.largest_token < 0 || info.largest_token >= info.vocabulary_size)
      throw Hdf5Error(fmt::format("its largest token is {}, its vocabulary size {}", info.largest_token,
                                  info.vocabulary_size));
  }
  for (const char* name : {"tokens", "documents"}) {
    if (!has_link(file_.get(), name)) throw Hdf5Error(fmt::format("/{} is missing", name));
  }
  token_data_ = open_dataset(file_.get(), "tokens");
  tokens = column_length(token_data_.get(), 4, "tokens");
  info.has_loss_mask = has_link(file_.get(), "loss_mask");
  if (info.has_loss_mask) {
    mask_data_ = open_dataset(file_.get(), "loss_mask");
    const std::int64_t length = column_length(mask_data_.get(), 1, "loss_mask");
    if (length != tokens) throw Hdf5Error(fmt::format("{} loss mask values for {} tokens", length, tokens));
  }
}

void Hdf5Tokens::read_documents() {
  const auto dataset = open_dataset(file_.get(), "documents");
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

void Hdf5Tokens::read(std::int64_t begin, std::span<std::uint32_t> out) const {
  read_range(token_data_.get(), H5T_NATIVE_UINT32, static_cast<hsize_t>(begin), out.size(), out.data());
}

void Hdf5Tokens::read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const {
  read_range(mask_data_.get(), H5T_NATIVE_UINT8, static_cast<hsize_t>(begin), out.size(), out.data());
}

}  // namespace

std::unique_ptr<TokenSource> open_hdf5_tokens(const std::filesystem::path& path) {
  return std::make_unique<Hdf5Tokens>(path);
}

}  // namespace llama3d::io
