#pragma once
// Reads a text file a document, or a piece of one, at a time.

#include <functional>

#include "data/document_input.hpp"

namespace llama3d {

struct TextInputOptions {
  std::string separator;  ///< line that ends a document; empty: the file is one document
  /// Of a text: the last place where it may be cut in two, 0 for none. None: documents are never cut.
  std::function<std::size_t(std::string_view)> last_cut;
  std::size_t piece_bytes = std::size_t{1} << 20;  ///< a document of more is cut where it may be
  std::size_t largest_piece = 0;                   ///< bytes; longer text that can't be cut is an error
};

/// Memory: one piece and a buffer.
class TextInput final : public DocumentInput {
 public:
  /// Throws DataError as BufferedFile does.
  TextInput(const std::filesystem::path& path, const TextInputOptions& options);

  /// The next piece of the documents that hold more than white space. Throws DataError for a read error, a
  /// NUL byte (not text) and a piece over the limit.
  bool next(RawText& piece) override;
  std::int64_t bytes_read() const override { return file_.bytes_read(); }
  std::int64_t empty_documents() const override { return empty_documents_; }

 private:
  /// Whether the text so far ends with the separator, which is then taken off.
  bool take_separator();
  /// Moves what comes before the last cut of the document to `piece`; false where there is none.
  bool cut(RawText& piece);
  /// Moves the rest of the document to `piece`; false when the document is nothing but white space.
  bool end_document(RawText& piece);

  static constexpr std::size_t line_cut = ~std::size_t{0};

  TextInputOptions options_;
  BufferedFile file_;
  std::int64_t empty_documents_ = 0;
  bool finished_ = false;
  RawText document_;              ///< what is there of it, without pieces that left
  std::size_t line_begin_ = 0;    ///< of the last line, in document_; line_cut: it has left in part
  std::size_t next_attempt_ = 0;  ///< bytes of document_ at which a cut is tried
};

}  // namespace llama3d
