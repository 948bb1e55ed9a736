#include "data/document_input.hpp"

#include <cstring>
#include <system_error>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;

}  // namespace

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

std::string place_of(const std::filesystem::path& path, std::int64_t line, std::int64_t record) {
  const std::string place = fmt::format("{}:{}", path.string(), line);
  return record > 0 ? fmt::format("{}, record {}", place, record) : place;
}

void check_piece_size(const BufferedFile& file, std::int64_t line, std::size_t bytes, std::size_t most,
                      std::string_view what) {
  if (bytes > most)
    throw DataError(
        fmt::format("{}:{}: {} there is longer than {} bytes (it is held in memory whole); split it",
                    file.path().string(), line, what, most));
}

BufferedFile::BufferedFile(std::filesystem::path path) : path_(std::move(path)), buffer_(buffer_bytes) {
  std::error_code ignored;
  if (!std::filesystem::exists(path_, ignored))
    throw DataError(fmt::format("{} is missing (no such file); check its name", path_.string()));
  if (std::filesystem::is_directory(path_, ignored))
    throw DataError(fmt::format("{} is a folder (not a text file); name the files in it", path_.string()));
  file_.open(path_, std::ios::binary);
  if (!file_) throw DataError(fmt::format("{} can't be opened (no permission?)", path_.string()));
}

bool BufferedFile::fill() {
  file_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  if (file_.bad())
    throw DataError(fmt::format("{} can't be read (input error); check the disk", path_.string()));
  buffer_begin_ = 0;
  buffer_end_ = static_cast<std::size_t>(file_.gcount());
  const bool first = bytes_read_ == 0;
  bytes_read_ += file_.gcount();
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (first && std::string_view(buffer_.data(), buffer_end_).starts_with(byte_order_mark))
    buffer_begin_ = byte_order_mark.size();
  return buffer_begin_ < buffer_end_;
}

std::string_view BufferedFile::ahead() {
  if (buffer_begin_ == buffer_end_ && !fill()) return {};
  return {buffer_.data() + buffer_begin_, buffer_end_ - buffer_begin_};
}

BufferedFile::Line BufferedFile::append_some(std::string& text) {
  const std::string_view some = ahead();
  if (some.empty()) return Line::none;
  const std::size_t feed = some.find('\n');
  const std::string_view part = some.substr(0, feed == std::string_view::npos ? feed : feed + 1);
  if (!in_line_) ++line_;
  in_line_ = feed == std::string_view::npos;
  if (std::memchr(part.data(), '\0', part.size()))
    throw DataError(
        fmt::format("{}:{} holds a NUL byte (not a text file: compressed, or binary?); give plain text",
                    path_.string(), line_));
  text.append(part);
  take(part.size());
  return in_line_ ? Line::part : Line::whole;
}

}  // namespace llama3d
