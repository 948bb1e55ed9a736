#pragma once
// Reads a text or JSON-lines file one document at a time.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace llama3d {

/// A document of a text file, or one line of a JSON-lines file, still unparsed.
struct RawDocument {
  std::string text;
  std::int64_t line = 0;  ///< of the file, from 1, where it begins
};

struct TextInputOptions {
  std::string separator;  ///< line that ends a document of a text file; empty: the file is one document
  std::int64_t largest_document = 0;  ///< bytes
};

/// Files named *.jsonl or *.ndjson hold JSON lines, all others text. Memory: one document and a buffer.
class TextInput {
 public:
  /// Throws DataError, naming file and reason: missing, unreadable, a folder, or of a kind that is not text.
  TextInput(const std::filesystem::path& path, const TextInputOptions& options);

  bool json_lines() const { return json_lines_; }
  const std::filesystem::path& path() const { return path_; }
  /// The next document that holds more than white space; false at the end of the file. A byte order mark is
  /// dropped. Throws DataError for a read error, a NUL byte (not text) and a document over the limit.
  bool next(RawDocument& document);
  std::int64_t bytes_read() const { return bytes_read_; }
  /// Documents passed over because they held nothing but white space; blank JSON lines are not documents.
  std::int64_t empty_documents() const { return empty_documents_; }

 private:
  /// Appends the next line with its line feed; false at the end of the file.
  bool append_line(std::string& text);
  bool fill_buffer();
  bool next_json_line(RawDocument& document);
  bool next_text(RawDocument& document);
  void check_line(const std::string& text, std::size_t line_begin) const;

  std::filesystem::path path_;
  TextInputOptions options_;
  bool json_lines_;
  std::ifstream file_;
  std::vector<char> buffer_;
  std::size_t buffer_begin_ = 0, buffer_end_ = 0;
  std::int64_t bytes_read_ = 0, line_ = 0, empty_documents_ = 0;
  bool finished_ = false;
};

}  // namespace llama3d
