#pragma once
// Reads the records of a JSON file, one at a time and unparsed: JSON lines, or an array of values.

#include <memory>

#include "data/document_input.hpp"

namespace llama3d {

/// A record a line; blank lines are none. Memory: a line and a buffer.
class JsonLinesInput final : public DocumentInput {
 public:
  /// A line of more than `largest` bytes is an error.
  JsonLinesInput(BufferedFile file, std::size_t largest);
  bool next(RawText& record) override;
  std::int64_t bytes_read() const override { return file_.bytes_read(); }

 private:
  BufferedFile file_;
  std::size_t largest_;
};

/// The elements of an array, told apart by brackets and strings alone. Memory: an element and a buffer.
class JsonArrayInput final : public DocumentInput {
 public:
  JsonArrayInput(BufferedFile file, std::size_t largest);
  /// Throws DataError, naming the line, also where the array is damaged: cut short, or without a comma
  /// between two elements. What is wrong inside an element shows when that is parsed.
  bool next(RawText& record) override;
  std::int64_t bytes_read() const override { return file_.bytes_read(); }

 private:
  /// Takes white space; the next character after it, or 0 at the end of the file.
  char next_character();
  void take_element(RawText& record);
  [[noreturn]] void fail(std::int64_t line, const std::string& reason) const;

  BufferedFile file_;
  std::size_t largest_;
  std::int64_t line_ = 1;  ///< of the next byte
  std::int64_t records_ = 0;
  bool begun_ = false, finished_ = false;
};

/// An array where the first character that is not white space opens one, else lines. Throws DataError as
/// BufferedFile does.
std::unique_ptr<DocumentInput> open_json_records(const std::filesystem::path& path, std::size_t largest);

}  // namespace llama3d
