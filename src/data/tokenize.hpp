#pragma once
// `llama3d tokenize`: text to a token file.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/chat_template.hpp"
#include "data/conversation.hpp"
#include "data/tokenizer/tokenizer.hpp"

namespace llama3d {

struct TokenizeOptions {
  std::string tokenizer = "bytes";  ///< as make_tokenizer takes it
  /// Where the tokenizer needs UTF-8, and in JSON lines always.
  InvalidUtf8 invalid_utf8 = InvalidUtf8::error;
  std::vector<std::filesystem::path> inputs;
  /// Of all inputs. Automatic: *.json, *.jsonl and *.ndjson by the members of their first records; all others
  /// are text.
  InputFormat format = InputFormat::automatic;
  std::filesystem::path output;        ///< token file; replaced when it exists, and only when all went well
  std::string text_field = "text";     ///< member of a JSON record that holds the document
  LossOn loss_on = LossOn::assistant;  ///< of conversations; every token of a text is a target
  std::int64_t cutoff = 0;             ///< most tokens of a conversation; 0: no limit
  bool strict = false;                 ///< a bad record is an error; else it is counted and left out
  /// Line that ends a document of a text file, blanks around it ignored ("* * *", or a form feed). Empty:
  /// each text file is one document.
  std::string split_documents_on;
  /// Bytes a thread gets at once, about; longer documents of text files are cut into pieces.
  std::size_t piece_bytes = std::size_t{1} << 20;
  /// Bytes; a longer JSON record, or text without a place to cut it (one endless word), is an error.
  std::size_t largest_piece = std::size_t{256} << 20;
  int threads = 0;         ///< that encode; 0: one a core
  std::string created_by;  ///< recorded in the file
};

struct TokenizeProgress {
  std::int64_t bytes_read = 0;
  std::int64_t bytes_total = 0;  ///< 0 when unknown (a pipe among the inputs)
  std::int64_t documents = 0;    ///< written so far
  std::int64_t tokens = 0;
};

struct TokenizeSummary {
  std::int64_t bytes = 0;  ///< of input
  std::int64_t documents = 0;
  std::int64_t empty_documents = 0;            ///< left out: nothing but white space
  std::int64_t bad_records = 0;                ///< left out: no JSON, or not what the format asks for
  std::vector<std::string> first_bad_records;  ///< file, line and reason of some
  std::int64_t conversations = 0;              ///< among the documents
  std::int64_t truncated_documents = 0;        ///< conversations longer than the cutoff
  std::int64_t tokens = 0;
  std::int64_t learned_tokens = 0;  ///< that are targets
  std::int64_t vocabulary_size = 0;
  std::string tokenizer_doubt;  ///< Tokenizer::doubt()
  /// -sum p ln p over the frequencies of all tokens written, in nats a token: the loss of a model that knows
  /// how often each token occurs and nothing else. A trained model's loss must be below it.
  double unigram_entropy = 0;
};

/// What tokenize_files() takes the inputs for, without their records. Throws as it does.
std::vector<InputFormat> input_formats(const TokenizeOptions& options);

/// Writes every document of the inputs, in their order: texts as begin of text + tokens + end of text,
/// conversations as render_chat_for_training gives them, with a loss mask as soon as one input holds some.
/// Memory does not grow with the inputs: a batch of pieces of documents a thread.
/// The output does not depend on the number of threads. `progress` is called now and then on the calling
/// thread. Throws ConfigurationError for no input, no output or an unknown tokenizer; DataError, naming file
/// and line, for a missing or unreadable file, a damaged JSON array, invalid UTF-8, inputs without any text,
/// a file of JSON records of which none can be used and, with `strict`, a bad record. Then no output is left.
TokenizeSummary tokenize_files(const TokenizeOptions& options,
                               const std::function<void(const TokenizeProgress&)>& progress = {});

}  // namespace llama3d
