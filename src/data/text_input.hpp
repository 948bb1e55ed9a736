#pragma once
// Reads a text or JSON-lines file a document, or a piece of one, at a time.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

/// A document of a text file, or a piece of one, or one line of a JSON-lines file, still unparsed.
struct RawText {
  std::string text;
  std::int64_t line = 0;    ///< of the file, from 1, where it begins
  std::int64_t offset = 0;  ///< in the file, in bytes
  bool begins_document = true, ends_document = true;
};

struct TextInputOptions {
  std::string separator;  ///< line that ends a document of a text file; empty: the file is one document
  /// Of a text: the last place where it may be cut in two, 0 for none. None: documents are never cut.
  std::function<std::size_t(std::string_view)> last_cut;
  std::size_t piece_bytes = std::size_t{1} << 20;  ///< a document of more is cut where it may be
  std::size_t largest_piece = 0;  ///< bytes; a longer JSON line, or text that can't be cut, is an error
};

/// Files named *.jsonl or *.ndjson hold JSON lines, all others text. Memory: one piece and a buffer.
class TextInput {
 public:
  /// Throws DataError, naming file and reason: missing, unreadable, a folder, or of a kind that is not text.
  TextInput(const std::filesystem::path& path, const TextInputOptions& options);

  bool json_lines() const { return json_lines_; }
  const std::filesystem::path& path() const { return path_; }
  /// The next piece of the documents that hold more than white space; false at the end of the file. A byte
  /// order mark is dropped. Throws DataError for a read error, a NUL byte (not text) and a piece over the
  /// limit.
  bool next(RawText& piece);
  std::int64_t bytes_read() const { return bytes_read_; }
  /// Documents passed over because they held nothing but white space; blank JSON lines are not documents.
  std::int64_t empty_documents() const { return empty_documents_; }

 private:
  enum class Line { whole, part, none };
  /// Appends what the buffer has of the next line, up to its line feed; none at the end of the file.
  Line append_some(std::string& text);
  bool fill_buffer();
  bool next_json_line(RawText& line);
  bool next_text(RawText& piece);
  /// Whether the text so far ends with the separator, which is then taken off.
  bool take_separator();
  /// Moves what comes before the last cut of the document to `piece`; false where there is none.
  bool cut(RawText& piece);
  /// Moves the rest of the document to `piece`; false when the document is nothing but white space.
  bool end_document(RawText& piece);
  void check_part(std::string_view part) const;
  void check_size(std::size_t bytes) const;

  static constexpr std::size_t line_cut = ~std::size_t{0};

  std::filesystem::path path_;
  TextInputOptions options_;
  bool json_lines_;
  std::ifstream file_;
  std::vector<char> buffer_;
  std::size_t buffer_begin_ = 0, buffer_end_ = 0;
  std::int64_t bytes_read_ = 0, line_ = 0, empty_documents_ = 0;
  bool in_line_ = false;  ///< the end of line_ is still to come
  bool finished_ = false;
  RawText document_;              ///< what is there of it, without pieces that left
  std::size_t line_begin_ = 0;    ///< of the last line, in document_; line_cut: it has left in part
  std::size_t next_attempt_ = 0;  ///< bytes of document_ at which a cut is tried
};

}  // namespace llama3d
