#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "io/posix/posix_file.hpp"

namespace llama3d::io {

/// Little-endian integers, one after the other from an offset on.
class FlatIntegers {
 public:
  FlatIntegers() = default;
  /// Opens the file. Throws IoError when it does not hold all `count` integers.
  FlatIntegers(const std::filesystem::path& path, std::int64_t offset, std::int64_t count, int bytes,
               bool is_signed);
  std::int64_t count() const { return count_; }
  void read(std::int64_t begin, std::span<std::int64_t> out) const;
  /// Throws IoError for one that is no token id: negative, or of more than 32 bits.
  void read_tokens(std::int64_t begin, std::span<std::uint32_t> out) const;

 private:
  /// Hands them to `take(index, value)`, a piece of the range at a time.
  template <class Take>
  void for_each(std::int64_t begin, std::int64_t end, Take&& take) const;

  FileDescriptor file_;
  std::int64_t offset_ = 0, count_ = 0;
  int bytes_ = 0;
  bool is_signed_ = false;
};

/// Reads such integers one by one.
class IntegerStream {
 public:
  explicit IntegerStream(const FlatIntegers& integers) : integers_(integers) {}
  /// The next one; there must be one.
  std::int64_t next();

 private:
  const FlatIntegers& integers_;
  std::vector<std::int64_t> buffer_;
  std::size_t place_ = 0;
  std::int64_t read_ = 0;
};

}  // namespace llama3d::io
