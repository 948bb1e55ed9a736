#pragma once
// The harm that tests do to files.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace llama3d::test {

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline void truncate_by(const std::filesystem::path& path, std::uintmax_t bytes) {
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - bytes);
}

/// Flips the lowest bit of the byte `ahead` bytes after the first occurrence of `mark`.
inline void flip_bit(const std::filesystem::path& path, const std::string& mark, std::size_t ahead = 0) {
  std::string bytes = read_bytes(path);
  const auto place = bytes.find(mark);
  if (place == std::string::npos) throw std::runtime_error("nothing to damage in " + path.string());
  bytes[place + ahead] ^= 1;
  write_bytes(path, bytes);
}

}  // namespace llama3d::test
