#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/posix/partial_file.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/token_format.hpp"

namespace llama3d {
namespace {

using namespace io;

// A growing one-dimensional dataset, written a whole chunk at a time so that memory stays constant.
template <class T>
class Column {
 public:
  Column(hid_t file, const char* name, hid_t type, T unwritten) : type_(type) {
    const hsize_t size = 0, unlimited = H5S_UNLIMITED, chunk = token_chunk;
    const auto space = own_hdf5<Hdf5Space>(H5Screate_simple(1, &size, &unlimited), "make a dataspace");
    const auto creation = make_properties(H5P_DATASET_CREATE);
    check_hdf5(H5Pset_chunk(creation.get(), 1, &chunk), "set the chunk size");
    check_hdf5(H5Pset_fletcher32(creation.get()), "ask for checksums");
    check_hdf5(H5Pset_fill_value(creation.get(), type, &unwritten), "set the fill value");
    dataset_ = own_hdf5<Hdf5Dataset>(
        H5Dcreate2(file, name, type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
        fmt::format("create dataset {}", name));
    buffer_.reserve(token_chunk);
  }

  // Calls `before_write` before every transfer to the file.
  template <class BeforeWrite>
  void append(std::span<const T> values, BeforeWrite&& before_write) {
    while (!values.empty()) {
      const std::size_t count = std::min(values.size(), token_chunk - buffer_.size());
      buffer_.insert(buffer_.end(), values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count));
      values = values.subspan(count);
      if (buffer_.size() == token_chunk) flush(before_write);
    }
  }

  template <class BeforeWrite>
  void flush(BeforeWrite&& before_write) {
    if (buffer_.empty()) return;
    before_write();
    const hsize_t size = written_ + buffer_.size();
    check_hdf5(H5Dset_extent(dataset_.get(), &size), "grow a dataset");
    write_range(dataset_.get(), type_, written_, buffer_.size(), buffer_.data());
    written_ = size;
    buffer_.clear();
  }

 private:
  hid_t type_;
  Hdf5Dataset dataset_;
  hsize_t written_ = 0;
  std::vector<T> buffer_;
};

// Space taken ahead of what HDF5 has in the file: the chunks of three columns that it may hold in memory (1
// MiB each), the next one, and their index.
constexpr std::int64_t reserve_step = std::int64_t{4} << 20;

}  // namespace

struct TokenFileWriter::State {
  std::filesystem::path path;
  TokenFileInfo info;
  std::int64_t tokens = 0, documents = 0;
  bool failed = false, finished = false;
  bool in_document = false;            ///< begun by a piece, not ended
  std::optional<PartialFile> partial;  // before what is closed first
  Hdf5File file;
  SpaceReserve space;
  std::unique_ptr<Column<std::uint32_t>> token_column;
  std::unique_ptr<Column<std::uint64_t>> document_column;
  std::unique_ptr<Column<std::uint8_t>> mask_column;

  void reserve() { space.ensure(file_size(file.get()) + reserve_step); }

  [[noreturn]] void fail(const std::string& reason) {
    failed = true;
    throw DataError(fmt::format("token file {} cannot be written ({}); make room or choose another `output`",
                                path.string(), reason));
  }

  template <class Action>
  void guarded(Action&& action) {
    LLAMA3D_EXPECT(!failed && !finished, "token file {} takes no more", path.string());
    try {
      action();
    } catch (const IoError& error) {
      fail(error.what());
    } catch (const std::filesystem::filesystem_error& error) {
      fail(error.what());
    }
  }

  void close_columns() {
    token_column.reset();
    document_column.reset();
    mask_column.reset();
  }
};

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  s.info = info;
  s.info.largest_token = -1;
  LLAMA3D_EXPECT(info.vocabulary_size > 0 && info.vocabulary_size <= 0xffffffffLL, "vocabulary of {} tokens",
                 info.vocabulary_size);
  s.guarded([&] {
    s.partial.emplace(path);
    s.file = create_file(s.partial->path());
    s.space = SpaceReserve(s.partial->path());
    s.reserve();
    s.token_column =
        std::make_unique<Column<std::uint32_t>>(s.file.get(), "tokens", H5T_STD_U32LE, unwritten_token);
    s.document_column =
        std::make_unique<Column<std::uint64_t>>(s.file.get(), "documents", H5T_STD_U64LE, ~std::uint64_t{0});
    if (info.has_loss_mask) {
      s.mask_column =
          std::make_unique<Column<std::uint8_t>>(s.file.get(), "loss_mask", H5T_STD_U8LE, unwritten_mask);
    }
    write_attribute(s.file.get(), "format", std::string(token_file_format));
    write_attribute(s.file.get(), "version", token_file_version);
    write_attribute(s.file.get(), "tokenizer", info.tokenizer);
    if (!info.tokenizer_hash.empty()) write_attribute(s.file.get(), "tokenizer_sha256", info.tokenizer_hash);
    write_attribute(s.file.get(), "vocabulary_size", info.vocabulary_size);
    write_attribute(s.file.get(), "created_by", info.created_by);
  });
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append_piece(std::span<const std::uint32_t> tokens,
                                   std::span<const std::uint8_t> loss_mask) {
  State& s = *state_;
  LLAMA3D_EXPECT(loss_mask.size() == (s.info.has_loss_mask ? tokens.size() : 0),
                 "{} mask values for {} tokens of {}", loss_mask.size(), tokens.size(), s.path.string());
  for (const std::uint32_t token : tokens) {
    if (token >= s.info.vocabulary_size) {
      throw DataError(
          fmt::format("token {} in document {} for {} (the vocabulary has {}); use the tokenizer that "
                      "belongs to it",
                      token, s.documents, s.path.string(), s.info.vocabulary_size));
    }
    s.info.largest_token = std::max<std::int64_t>(s.info.largest_token, token);
  }
  s.guarded([&] {
    const auto reserve = [&] { s.reserve(); };
    const auto begin = static_cast<std::uint64_t>(s.tokens);
    if (!s.in_document) s.document_column->append({&begin, 1}, reserve);
    s.in_document = true;
    s.token_column->append(tokens, reserve);
    if (s.mask_column) s.mask_column->append(loss_mask, reserve);
    s.tokens += static_cast<std::int64_t>(tokens.size());
  });
}

void TokenFileWriter::append_document(std::span<const std::uint32_t> tokens,
                                      std::span<const std::uint8_t> loss_mask) {
  append_piece(tokens, loss_mask);
  state_->in_document = false;
  ++state_->documents;
}

std::int64_t TokenFileWriter::tokens() const {
  return state_->tokens;
}
std::int64_t TokenFileWriter::documents() const {
  return state_->documents;
}

void TokenFileWriter::finish() {
  State& s = *state_;
  LLAMA3D_EXPECT(!s.in_document, "the last document of {} is not ended", s.path.string());
  s.guarded([&] {
    const auto reserve = [&] { s.reserve(); };
    const auto end = static_cast<std::uint64_t>(s.tokens);
    s.document_column->append({&end, 1}, reserve);
    s.document_column->flush(reserve);
    s.token_column->flush(reserve);
    if (s.mask_column) s.mask_column->flush(reserve);
    s.close_columns();
    if (s.info.largest_token >= 0) write_attribute(s.file.get(), "largest_token", s.info.largest_token);
    check_hdf5(H5Fflush(s.file.get(), H5F_SCOPE_GLOBAL), "flush the file");
    close_file(s.file);
    s.space.finish(size_of_file(s.partial->path()));
    TokenFileReader written(s.partial->path());
    if (written.tokens() != s.tokens) throw IoError("reading it back finds fewer tokens");
    s.partial->commit();
  });
  s.finished = true;
}

}  // namespace llama3d
