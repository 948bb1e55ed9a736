#include "io/tokens/flat_tokens.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace llama3d::io {
namespace {

constexpr std::int64_t piece_integers = 8192;

template <class Stored>
std::int64_t stored_at(const std::byte* bytes) {
  Stored value;
  std::memcpy(&value, bytes, sizeof value);
  return static_cast<std::int64_t>(value);
}

std::int64_t integer_at(const std::byte* bytes, int size, bool is_signed) {
  switch (size) {
    case 1: return is_signed ? stored_at<std::int8_t>(bytes) : stored_at<std::uint8_t>(bytes);
    case 2: return is_signed ? stored_at<std::int16_t>(bytes) : stored_at<std::uint16_t>(bytes);
    case 4: return is_signed ? stored_at<std::int32_t>(bytes) : stored_at<std::uint32_t>(bytes);
    default: return stored_at<std::int64_t>(bytes);
  }
}

}  // namespace

FlatIntegers::FlatIntegers(const std::filesystem::path& path, std::int64_t offset, std::int64_t count,
                           int bytes, bool is_signed)
    : file_(open_descriptor(path, OpenMode::read)),
      offset_(offset),
      count_(count),
      bytes_(bytes),
      is_signed_(is_signed) {
  const std::int64_t room = size_of_file(path) - offset;
  if (count < 0 || room < 0 || count > room / bytes)
    throw IoError(
        fmt::format("truncated: {} should hold {} integers of {} bytes from byte {} on, and has {} bytes",
                    path.filename().string(), count, bytes, offset, room + offset));
}

template <class Take>
void FlatIntegers::for_each(std::int64_t begin, std::int64_t end, Take&& take) const {
  std::array<std::byte, static_cast<std::size_t>(piece_integers) * 8> buffer;
  for (std::int64_t piece = begin; piece < end; piece += piece_integers) {
    const std::int64_t count = std::min(piece_integers, end - piece);
    read_at(file_.get(), buffer.data(), static_cast<std::size_t>(count * bytes_), offset_ + piece * bytes_);
    for (std::int64_t i = 0; i < count; ++i)
      take(piece + i, integer_at(buffer.data() + i * bytes_, bytes_, is_signed_));
  }
}

void FlatIntegers::read(std::int64_t begin, std::span<std::int64_t> out) const {
  for_each(begin, begin + std::ssize(out),
           [&](std::int64_t i, std::int64_t value) { out[static_cast<std::size_t>(i - begin)] = value; });
}

void FlatIntegers::read_tokens(std::int64_t begin, std::span<std::uint32_t> out) const {
  for_each(begin, begin + std::ssize(out), [&](std::int64_t i, std::int64_t value) {
    if (value < 0 || value >= std::numeric_limits<std::uint32_t>::max())
      throw IoError(fmt::format("token {} is {}, which is no token id", i, value));
    out[static_cast<std::size_t>(i - begin)] = static_cast<std::uint32_t>(value);
  });
}

std::int64_t IntegerStream::next() {
  if (place_ == buffer_.size()) {
    buffer_.resize(static_cast<std::size_t>(std::min(piece_integers, integers_.count() - read_)));
    integers_.read(read_, buffer_);
    read_ += std::ssize(buffer_);
    place_ = 0;
  }
  return buffer_[place_++];
}

}  // namespace llama3d::io
