#include "data/tokenize.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <future>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "data/detect_format.hpp"
#include "data/json_input.hpp"
#include "data/text_input.hpp"
#include "data/tokenize_batch.hpp"
#include "io/posix/output_check.hpp"
#include "io/tokens/token_file.hpp"

namespace llama3d {
namespace {

constexpr std::size_t bad_records_shown = 5;

double entropy(const std::vector<std::uint64_t>& counts, std::int64_t total) {
  double sum = 0;
  for (const std::uint64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(total);
    sum -= share * std::log(share);
  }
  return sum;
}

std::unique_ptr<DocumentInput> open_input(const InputFile& file, const TokenizeOptions& options,
                                          const Tokenizer& tokenizer) {
  if (file.format != InputFormat::text) return open_json_records(file.path, options.largest_piece);
  TextInputOptions how;
  how.separator = options.split_documents_on;
  how.piece_bytes = options.piece_bytes;
  how.largest_piece = options.largest_piece;
  how.last_cut = [&tokenizer](std::string_view text) { return tokenizer.last_cut(text); };
  return std::make_unique<TextInput>(file.path, how);
}

std::string format_place(const InputFile& file, const EncodedPiece& piece) {
  return fmt::format("{}: {}", place_of(file.path, piece.line, piece.record), piece.bad);
}

/// Good and bad records of a file.
struct RecordCount {
  std::int64_t good = 0, bad = 0;
  std::string first_bad;
};

/// Reading and writing happen on the calling thread, in order; encoding on one short-lived thread a batch.
class Pipeline {
 public:
  Pipeline(const TokenizeOptions& options, std::vector<InputFile> files,
           const std::function<void(const TokenizeProgress&)>& progress)
      : options_(options),
        files_(std::move(files)),
        progress_(progress),
        tokenizer_(make_tokenizer(options.tokenizer)),
        threads_(options.threads > 0 ? static_cast<std::size_t>(options.threads)
                                     : std::max(1u, std::thread::hardware_concurrency())),
        loss_mask_(std::any_of(files_.begin(), files_.end(),
                               [](const InputFile& file) { return holds_conversations(file.format); })),
        writer_(options.output, {tokenizer_->name(), tokenizer_->vocabulary_size(), options.created_by,
                                 loss_mask_, tokenizer_->file_hash()}),
        counts_(static_cast<std::size_t>(tokenizer_->vocabulary_size())),
        records_(files_.size()) {}

  void set_bytes_total(std::int64_t bytes) { status_.bytes_total = bytes; }

  TokenizeSummary run() {
    for (std::size_t file = 0; file < files_.size(); ++file) read(file);
    return finish();
  }

 private:
  void read(std::size_t file) {
    const auto input = open_input(files_[file], options_, *tokenizer_);
    const std::int64_t bytes_before = status_.bytes_read;
    for (RawText raw; input->next(raw);) {
      batch_.bytes += raw.text.size();
      batch_.pieces.push_back({file, std::exchange(raw, {})});
      status_.bytes_read = bytes_before + input->bytes_read();
      if (batch_.bytes >= options_.piece_bytes) submit();
    }
    status_.bytes_read = bytes_before + input->bytes_read();
    summary_.empty_documents += input->empty_documents();
  }

  TokenizeSummary finish() {
    submit();
    while (!in_flight_.empty()) write_oldest();
    check_records();
    if (writer_.documents() == 0)
      throw DataError(
          fmt::format("{} holds no text (nothing but white space in {} input{}); give files with text",
                      options_.inputs.front().string(), options_.inputs.size(),
                      options_.inputs.size() == 1 ? "" : "s, that one first"));
    summary_.bytes = status_.bytes_read;
    summary_.documents = writer_.documents();
    summary_.tokens = writer_.tokens();
    if (!loss_mask_) summary_.learned_tokens = summary_.tokens;
    summary_.vocabulary_size = tokenizer_->vocabulary_size();
    summary_.tokenizer_doubt = tokenizer_->doubt();
    summary_.unigram_entropy = entropy(counts_, summary_.tokens);
    writer_.finish();
    return summary_;
  }

  void check_records() const {
    for (std::size_t file = 0; file < files_.size(); ++file) {
      const RecordCount& count = records_[file];
      if (count.bad > 0 && count.good == 0)
        throw DataError(fmt::format("{} (and so for all {} records of the file); check `format {}`",
                                    count.first_bad, count.bad, word_of(files_[file].format)));
    }
  }

  void submit() {
    if (batch_.pieces.empty()) return;
    while (in_flight_.size() >= threads_) write_oldest();
    in_flight_.push_back(std::async(std::launch::async, [this, batch = std::exchange(batch_, {})]() mutable {
      return encode(std::move(batch), files_, *tokenizer_, options_, loss_mask_);
    }));
  }

  void write_oldest() {
    std::future<EncodedBatch> oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    const EncodedBatch encoded = oldest.get();
    std::size_t begin = 0;
    for (const EncodedPiece& piece : encoded.pieces) {
      write(piece, encoded, begin);
      begin = piece.end;
    }
    for (const std::uint32_t token : encoded.tokens) ++counts_[token];
    summary_.learned_tokens += std::count(encoded.learn.begin(), encoded.learn.end(), std::uint8_t{1});
    summary_.empty_documents += encoded.empty_documents;
    status_.documents = writer_.documents();
    status_.tokens = writer_.tokens();
    if (progress_) progress_(status_);
  }

  void write(const EncodedPiece& piece, const EncodedBatch& batch, std::size_t begin) {
    if (!piece.bad.empty()) return count_bad(piece);
    const auto tokens = std::span(batch.tokens).subspan(begin, piece.end - begin);
    const auto learn = loss_mask_ ? std::span(batch.learn).subspan(begin, piece.end - begin)
                                  : std::span<const std::uint8_t>();
    if (piece.ends_document)
      writer_.append_document(tokens, learn);
    else
      writer_.append_piece(tokens, learn);
    ++records_[piece.file].good;
    if (piece.truncated) ++summary_.truncated_documents;
    if (holds_conversations(files_[piece.file].format)) ++summary_.conversations;
  }

  void count_bad(const EncodedPiece& piece) {
    const std::string text = format_place(files_[piece.file], piece);
    if (options_.strict) throw DataError(text + "; mend the record, or have it left out without `strict`");
    RecordCount& count = records_[piece.file];
    if (++count.bad == 1) count.first_bad = text;
    ++summary_.bad_records;
    if (summary_.first_bad_records.size() < bad_records_shown) summary_.first_bad_records.push_back(text);
  }

  const TokenizeOptions& options_;
  std::vector<InputFile> files_;
  const std::function<void(const TokenizeProgress&)>& progress_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::size_t threads_;
  bool loss_mask_;
  TokenFileWriter writer_;
  std::vector<std::uint64_t> counts_;
  std::vector<RecordCount> records_;  ///< of each file
  TokenizeProgress status_;
  TokenizeSummary summary_;
  RawBatch batch_;
  std::deque<std::future<EncodedBatch>>
      in_flight_;  // last: its destructor waits for threads that use the above
};

void check_options(const TokenizeOptions& options) {
  if (options.inputs.empty())
    throw ConfigurationError("tokenize has no input (`input` is empty); name the text files to tokenize");
  if (options.output.empty())
    throw ConfigurationError("tokenize has no output (`output` is empty); name the token file to write");
  if (options.cutoff < 0 || options.cutoff == 1)
    throw ConfigurationError(
        fmt::format("`cutoff {}`: must be at least 2 tokens, or 0 for no limit", options.cutoff));
  if (options.threads < 0)
    throw ConfigurationError(
        fmt::format("`threads {}`: must be at least 1, or 0 for one a core", options.threads));
  expect_no_input(options.output, options.inputs);
  expect_no_input(options.output, {tokenizer_file(options.tokenizer)});
}

/// Bytes of all; 0 when unknown.
std::int64_t total_size(const std::vector<std::filesystem::path>& inputs) {
  std::int64_t total = 0;
  for (const auto& path : inputs) {
    std::error_code error;
    if (std::filesystem::is_fifo(path, error) || std::filesystem::is_character_file(path, error)) return 0;
    total += static_cast<std::int64_t>(std::filesystem::file_size(path));
  }
  return total;
}

std::vector<InputFile> look_at_inputs(const TokenizeOptions& options) {
  std::vector<InputFile> files;
  for (const auto& path : options.inputs) {
    std::error_code error;
    // Throws what is wrong with it; opening a pipe would wait for its writer.
    if (!std::filesystem::is_fifo(path, error)) BufferedFile file(path);
    const bool automatic = options.format == InputFormat::automatic;
    files.push_back(
        {path, automatic ? detect_format(path, options.text_field, options.largest_piece) : options.format});
  }
  return files;
}

}  // namespace

std::vector<InputFormat> input_formats(const TokenizeOptions& options) {
  check_options(options);
  std::vector<InputFormat> formats;
  for (const InputFile& file : look_at_inputs(options)) formats.push_back(file.format);
  return formats;
}

TokenizeSummary tokenize_files(const TokenizeOptions& options,
                               const std::function<void(const TokenizeProgress&)>& progress) {
  check_options(options);
  std::vector<InputFile> files = look_at_inputs(options);
  Pipeline pipeline(options, std::move(files), progress);
  pipeline.set_bytes_total(total_size(options.inputs));
  return pipeline.run();
}

}  // namespace llama3d
