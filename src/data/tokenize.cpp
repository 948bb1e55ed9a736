#include "data/tokenize.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "data/text_input.hpp"
#include "data/tokenizer.hpp"
#include "data/utf8.hpp"
#include "io/token_file.hpp"

namespace llama3d {
namespace {

struct Piece {
  const std::filesystem::path* path;
  bool json_lines;
  RawText raw;
};

/// Pieces of one file or several on their way to a worker.
struct RawBatch {
  std::vector<Piece> pieces;
  std::size_t bytes = 0;
};

struct EncodedPiece {
  std::size_t end;  ///< in the tokens of its batch
  bool ends_document;
};

struct EncodedBatch {
  std::vector<std::uint32_t> tokens;
  std::vector<EncodedPiece> pieces;
  std::int64_t empty_documents = 0;
};

/// Has invalid UTF-8 replaced, or throws.
void check_utf8(Piece& piece, InvalidUtf8 choice) {
  std::string& text = piece.raw.text;
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == std::string::npos) return;
  if (choice == InvalidUtf8::error) {
    const auto line =
        piece.raw.line + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n');
    throw DataError(
        fmt::format("{}:{} is no valid UTF-8 (byte 0x{:02X} at offset {} of the file); convert the file, or "
                    "have such bytes replaced with --invalid-utf8 replace",
                    piece.path->string(), line, static_cast<unsigned char>(text[bad]),
                    piece.raw.offset + static_cast<std::int64_t>(bad)));
  }
  text = replace_invalid_utf8(text);
}

std::string text_of_json_line(const Piece& piece, const std::string& field) {
  const auto where = [&] { return fmt::format("{}:{}", piece.path->string(), piece.raw.line); };
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(piece.raw.text);
  } catch (const nlohmann::json::exception& error) {
    std::string reason = error.what();
    if (const auto id_end = reason.find("] "); id_end != std::string::npos) reason.erase(0, id_end + 2);
    std::replace(reason.begin(), reason.end(), '\n', ' ');
    throw DataError(
        fmt::format("{} is no valid JSON ({}); each line must be one JSON object", where(), reason));
  }
  if (!value.is_object())
    throw DataError(fmt::format("{} holds a JSON {} (not an object); each line must be one JSON object",
                                where(), value.type_name()));
  const auto text = value.find(field);
  if (text == value.end())
    throw DataError(fmt::format(
        "{} has no \"{}\" (nowhere to take the text from); name the field that holds it", where(), field));
  if (!text->is_string())
    throw DataError(fmt::format("{}: \"{}\" is a JSON {} (not a string); name the field that holds the text",
                                where(), field, text->type_name()));
  return std::move(text->get_ref<std::string&>());
}

EncodedBatch encode(RawBatch batch, const Tokenizer& tokenizer, const TokenizeOptions& options) {
  EncodedBatch encoded;
  encoded.tokens.reserve(batch.bytes / 3);
  for (Piece& piece : batch.pieces) {
    const RawText& raw = piece.raw;
    if (piece.json_lines || tokenizer.needs_utf8()) check_utf8(piece, options.invalid_utf8);
    const std::string text =
        piece.json_lines ? text_of_json_line(piece, options.text_field) : std::exchange(piece.raw.text, {});
    const bool whole = raw.begins_document && raw.ends_document;
    if (whole && text.find_first_not_of(" \t\r\n\v\f") == std::string::npos) {
      ++encoded.empty_documents;
      continue;
    }
    if (raw.begins_document) encoded.tokens.push_back(tokenizer.begin_of_text());
    tokenizer.encode(text, encoded.tokens);
    if (raw.ends_document) encoded.tokens.push_back(tokenizer.end_of_text());
    encoded.pieces.push_back({encoded.tokens.size(), raw.ends_document});
  }
  return encoded;
}

double entropy(const std::vector<std::uint64_t>& counts, std::int64_t total) {
  double sum = 0;
  for (const std::uint64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(total);
    sum -= share * std::log(share);
  }
  return sum;
}

TextInputOptions input_options(const TokenizeOptions& options) {
  TextInputOptions how;
  how.separator = options.split_documents_on;
  how.piece_bytes = options.piece_bytes;
  how.largest_piece = options.largest_piece;
  return how;
}

/// Reading and writing happen on the calling thread, in order; encoding on one short-lived thread a batch.
class Pipeline {
 public:
  Pipeline(const TokenizeOptions& options, const std::function<void(const TokenizeProgress&)>& progress)
      : options_(options),
        progress_(progress),
        tokenizer_(make_tokenizer(options.tokenizer)),
        threads_(options.threads > 0 ? static_cast<std::size_t>(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())),
        writer_(options.output, {tokenizer_->name(), tokenizer_->vocabulary_size(), options.created_by, false,
                                 tokenizer_->file_hash()}),
        counts_(static_cast<std::size_t>(tokenizer_->vocabulary_size())) {}

  void set_bytes_total(std::int64_t bytes) { status_.bytes_total = bytes; }

  void read(const std::filesystem::path& path) {
    TextInputOptions how = input_options(options_);
    how.last_cut = [this](std::string_view text) { return tokenizer_->last_cut(text); };
    TextInput input(path, how);
    const std::int64_t bytes_before = status_.bytes_read;
    for (RawText raw; input.next(raw);) {
      batch_.bytes += raw.text.size();
      batch_.pieces.push_back({&path, input.json_lines(), std::exchange(raw, {})});
      status_.bytes_read = bytes_before + input.bytes_read();
      if (batch_.bytes >= options_.piece_bytes) submit();
    }
    status_.bytes_read = bytes_before + input.bytes_read();
    summary_.empty_documents += input.empty_documents();
  }

  TokenizeSummary finish() {
    submit();
    while (!in_flight_.empty()) write_oldest();
    if (writer_.documents() == 0)
      throw DataError(
          fmt::format("{} holds no text (nothing but white space in {} input{}); give files with text",
                      options_.inputs.front().string(), options_.inputs.size(),
                      options_.inputs.size() == 1 ? "" : "s, that one first"));
    summary_.bytes = status_.bytes_read;
    summary_.documents = writer_.documents();
    summary_.tokens = writer_.tokens();
    summary_.vocabulary_size = tokenizer_->vocabulary_size();
    summary_.unigram_entropy = entropy(counts_, summary_.tokens);
    writer_.finish();
    return summary_;
  }

 private:
  void submit() {
    if (batch_.pieces.empty()) return;
    while (in_flight_.size() >= threads_) write_oldest();
    in_flight_.push_back(std::async(std::launch::async, [this, batch = std::exchange(batch_, {})]() mutable {
      return encode(std::move(batch), *tokenizer_, options_);
    }));
  }

  void write_oldest() {
    std::future<EncodedBatch> oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    const EncodedBatch encoded = oldest.get();
    const std::span<const std::uint32_t> tokens = encoded.tokens;
    std::size_t begin = 0;
    for (const auto& [end, ends_document] : encoded.pieces) {
      const auto piece = tokens.subspan(begin, end - begin);
      if (ends_document)
        writer_.append_document(piece);
      else
        writer_.append_piece(piece);
      begin = end;
    }
    for (const std::uint32_t token : tokens) ++counts_[token];
    summary_.empty_documents += encoded.empty_documents;
    status_.documents = writer_.documents();
    status_.tokens = writer_.tokens();
    if (progress_) progress_(status_);
  }

  const TokenizeOptions& options_;
  const std::function<void(const TokenizeProgress&)>& progress_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::size_t threads_;
  TokenFileWriter writer_;
  std::vector<std::uint64_t> counts_;
  TokenizeProgress status_;
  TokenizeSummary summary_;
  RawBatch batch_;
  std::deque<std::future<EncodedBatch>>
      in_flight_;  // last: its destructor waits for threads that use the above
};

/// Opens each input once before anything is written, so that a wrong name costs no time. Returns their bytes,
/// or 0 when one has no size.
std::int64_t check_inputs(const TokenizeOptions& options) {
  if (options.inputs.empty())
    throw ConfigurationError("tokenize has no input (--input is empty); name the text files to tokenize");
  if (options.output.empty())
    throw ConfigurationError("tokenize has no output (--output is empty); name the token file to write");
  std::int64_t total = 0;
  bool known = true;
  for (const auto& path : options.inputs) {
    std::error_code error;
    if (std::filesystem::equivalent(path, options.output, error))
      throw ConfigurationError(fmt::format(
          "--output {} is also an input (it would be overwritten); choose another name", path.string()));
    if (std::filesystem::is_fifo(path, error) || std::filesystem::is_character_file(path, error)) {
      known = false;
      continue;
    }
    TextInput(path, input_options(options));  // throws what is wrong with it
    total += static_cast<std::int64_t>(std::filesystem::file_size(path));
  }
  return known ? total : 0;
}

}  // namespace

TokenizeSummary tokenize_files(const TokenizeOptions& options,
                               const std::function<void(const TokenizeProgress&)>& progress) {
  const std::int64_t bytes = check_inputs(options);
  Pipeline pipeline(options, progress);
  pipeline.set_bytes_total(bytes);
  for (const auto& path : options.inputs) pipeline.read(path);
  return pipeline.finish();
}

}  // namespace llama3d
