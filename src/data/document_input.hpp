#pragma once
// The files that `llama3d tokenize` reads, a document, a piece of one or a record at a time.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

/// A document of a text file, or a piece of one, or a JSON record, still unparsed.
struct RawText {
  std::string text;
  std::int64_t line = 0;    ///< of the file, from 1, where it begins
  std::int64_t offset = 0;  ///< in the file, in bytes
  bool begins_document = true, ends_document = true;
  std::int64_t record = 0;  ///< of an array, from 1, whose elements may share a line; 0: the line says it
};

class DocumentInput {
 public:
  virtual ~DocumentInput() = default;
  /// The next one; false at the end of the file. Throws DataError, naming file and line.
  virtual bool next(RawText& piece) = 0;
  virtual std::int64_t bytes_read() const = 0;
  /// Documents passed over because they held nothing but white space.
  virtual std::int64_t empty_documents() const { return 0; }
};

/// A file through a buffer. A byte order mark is dropped.
class BufferedFile {
 public:
  /// Throws DataError, naming file and reason: missing, unreadable, a folder.
  explicit BufferedFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  /// Bytes taken from the file, those still in the buffer too.
  std::int64_t bytes_read() const { return bytes_read_; }
  /// Of the next byte in the file.
  std::int64_t offset() const { return bytes_read_ - static_cast<std::int64_t>(buffer_end_ - buffer_begin_); }
  /// Of the byte taken last, from 1.
  std::int64_t line() const { return line_; }

  /// What the buffer holds, filled anew when there is nothing left; empty at the end of the file.
  std::string_view ahead();
  void take(std::size_t bytes) { buffer_begin_ += bytes; }

  enum class Line { whole, part, none };
  /// Appends what the buffer has of the next line, up to its line feed; none at the end of the file. Throws
  /// DataError for a NUL byte, which is not text.
  Line append_some(std::string& text);

 private:
  bool fill();

  std::filesystem::path path_;
  std::ifstream file_;
  std::vector<char> buffer_;
  std::size_t buffer_begin_ = 0, buffer_end_ = 0;
  std::int64_t bytes_read_ = 0, line_ = 0;
  bool in_line_ = false;  ///< the end of line_ is still to come
};

bool is_blank(std::string_view text);

/// For messages: "FILE:LINE", or "FILE:LINE, record 7".
std::string place_of(const std::filesystem::path& path, std::int64_t line, std::int64_t record);

/// Throws DataError when `bytes` are more than `most`. `what` stands there: "the line".
void check_piece_size(const BufferedFile& file, std::int64_t line, std::size_t bytes, std::size_t most,
                      std::string_view what);

}  // namespace llama3d
