#include <fmt/format.h>

#include <array>
#include <cstring>
#include <string_view>

#include "io/tokens/flat_tokens.hpp"
#include "io/tokens/token_source.hpp"

namespace llama3d::io {
namespace {

constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr std::int64_t header_bytes = 9 + 8 + 1 + 8 + 8;

struct Header {
  int bytes = 0;  ///< of a token
  bool is_signed = false;
  std::int64_t sequences = 0, bounds = 0;
};

std::filesystem::path with_extension(std::filesystem::path path, const char* extension) {
  return path.replace_extension(extension);
}

std::uint64_t uint64_at(const char* bytes) {
  std::uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

Header read_header(const std::filesystem::path& index) {
  const std::int64_t size = size_of_file(index);
  if (size < header_bytes)
    throw IoError(fmt::format("{} is too short for a header", index.filename().string()));
  std::array<char, header_bytes> bytes;
  read_at(open_descriptor(index, OpenMode::read).get(), bytes.data(), bytes.size(), 0);
  if (std::string_view(bytes.data(), magic.size()) != magic)
    throw IoError(fmt::format("{} is no index of Megatron-LM", index.filename().string()));
  if (const std::uint64_t version = uint64_at(&bytes[9]); version != 1)
    throw IoError(fmt::format("version {} of {} is unknown", version, index.filename().string()));
  Header header;
  switch (const int code = static_cast<unsigned char>(bytes[17]); code) {
    case 1: header.bytes = 1; break;
    case 2: header.bytes = 1, header.is_signed = true; break;
    case 3: header.bytes = 2, header.is_signed = true; break;
    case 4: header.bytes = 4, header.is_signed = true; break;
    case 5: header.bytes = 8, header.is_signed = true; break;
    case 8: header.bytes = 2; break;
    default: throw IoError(fmt::format("its tokens are of type {}, which is no integer type", code));
  }
  const std::uint64_t sequences = uint64_at(&bytes[18]), bounds = uint64_at(&bytes[26]);
  const auto most = static_cast<std::uint64_t>(size) / 8;
  if (sequences > most || bounds > most)
    throw IoError(fmt::format("{} is truncated: {} sequences and {} document bounds need more than {} bytes",
                              index.filename().string(), sequences, bounds, size));
  header.sequences = static_cast<std::int64_t>(sequences);
  header.bounds = static_cast<std::int64_t>(bounds);
  return header;
}

class MegatronTokens final : public TokenSource {
 public:
  explicit MegatronTokens(const std::filesystem::path& path) {
    const auto index = with_extension(path, ".idx"), data = with_extension(path, ".bin");
    const Header header = read_header(index);
    const std::int64_t lengths_at = header_bytes, places_at = lengths_at + 4 * header.sequences,
                       bounds_at = places_at + 8 * header.sequences;
    const FlatIntegers lengths(index, lengths_at, header.sequences, 4, true),
        places(index, places_at, header.sequences, 8, true), bounds(index, bounds_at, header.bounds, 8, true);
    // A multimodal index has a byte a sequence more.
    const std::int64_t end = bounds_at + 8 * header.bounds, left = size_of_file(index) - end;
    if (left != 0 && left != header.sequences)
      throw IoError(fmt::format("{} has {} bytes too many", index.filename().string(), left));
    find_documents(lengths, places, bounds, header.bytes);
    tokens_ = FlatIntegers(data, 0, tokens, header.bytes, header.is_signed);
    if (size_of_file(data) != tokens * header.bytes)
      throw IoError(fmt::format("{} has {} bytes, but the index tells of {} tokens of {} bytes",
                                data.filename().string(), size_of_file(data), tokens, header.bytes));
    info.tokenizer = "unknown";
    info.created_by = "Megatron-LM";
  }

  void read(std::int64_t begin, std::span<std::uint32_t> out) const override {
    tokens_.read_tokens(begin, out);
  }

 private:
  void find_documents(const FlatIntegers& lengths, const FlatIntegers& places, const FlatIntegers& bounds,
                      int bytes) {
    IntegerStream length(lengths), place(places), bound(bounds);
    std::int64_t sequence = 0;
    for (std::int64_t d = 0; d < bounds.count(); ++d) {
      const std::int64_t next = bound.next();
      if (d == 0 ? next != 0 : next < sequence || next > lengths.count())
        throw IoError(fmt::format("document bound {} is sequence {} of {}", d, next, lengths.count()));
      for (; sequence < next; ++sequence) {
        const std::int64_t own_length = length.next(), own_place = place.next();
        if (own_length < 0 || own_place != tokens * bytes)
          throw IoError(fmt::format("sequence {} has {} tokens at byte {}, where byte {} was to come",
                                    sequence, own_length, own_place, tokens * bytes));
        tokens += own_length;
      }
      documents.push_back(static_cast<std::uint64_t>(tokens));
    }
    if (sequence != lengths.count() || documents.empty())
      throw IoError(fmt::format("its documents end at sequence {} of {}", sequence, lengths.count()));
  }

  FlatIntegers tokens_;
};

}  // namespace

bool is_megatron_file(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::string extension = path.extension().string();
  return extension == ".idx" ||
         (extension == ".bin" && std::filesystem::exists(with_extension(path, ".idx"), ignored));
}

std::unique_ptr<TokenSource> open_megatron_tokens(const std::filesystem::path& path) {
  return std::make_unique<MegatronTokens>(path);
}

}  // namespace llama3d::io
