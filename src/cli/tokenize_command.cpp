#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/terminal.hpp"
#include "base/version.hpp"
#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "data/tokenize.hpp"

namespace llama3d {
namespace {

void show(const TokenizeProgress& p) {
  const int percent = p.bytes_total > 0 ? static_cast<int>(100 * p.bytes_read / p.bytes_total) : 0;
  fmt::print(stderr, "\r\033[K{:3d}%  {} read, {} documents, {} tokens", percent,
             format_bytes(static_cast<std::size_t>(p.bytes_read)), p.documents, p.tokens);
}

}  // namespace

int tokenize_command(int argc, char** argv) {
  return run_local([&] {
    CommandLine line("tokenize", "Turn text files (*.txt) and JSON lines (*.jsonl) into a token file.");
    TokenizeOptions options;
    std::vector<std::string> inputs;
    std::string output;
    line.add("tokenizer", options.tokenizer,
             "bytes (ids 0 to 255 are the bytes, vocabulary 259), or Llama 3's tokenizer.model, "
             "tokenizer.json or a "
             "folder with one");
    line.add_word("invalid-utf8", options.invalid_utf8, invalid_utf8_from, word_of,
                  "error, or replace by U+FFFD; bytes of text files are no matter to the byte tokenizer");
    line.add("input", inputs, "files to read, in order");
    line.add("output", output, "token file to write (.h5)");
    line.add("text-field", options.text_field, "member of a JSON line that holds the text");
    line.add("split-documents-on", options.split_documents_on,
             "line that ends a document of a text file; a file is one document if not given");
    line.add("threads", options.threads, "threads that encode; 0: one a core");
    if (line.parse(argc, argv) == CommandLine::Outcome::help) {
      fmt::print("{}", line.help());
      return 0;
    }
    options.inputs.assign(inputs.begin(), inputs.end());
    options.output = output;
    options.created_by = fmt::format("llama3d {} ({})", version(), git_revision());
    const bool terminal = stderr_is_terminal();
    const TokenizeSummary s =
        tokenize_files(options, terminal ? show : std::function<void(const TokenizeProgress&)>());
    if (terminal) fmt::print(stderr, "\r\033[K");
    fmt::print("{}: {} documents, {} tokens from {}; unigram entropy {:.4f} nats a token\n", output,
               s.documents, s.tokens, format_bytes(static_cast<std::size_t>(s.bytes)), s.unigram_entropy);
    return 0;
  });
}

}  // namespace llama3d
