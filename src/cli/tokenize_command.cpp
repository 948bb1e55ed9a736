#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "base/version.hpp"
#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "cli/progress_line.hpp"
#include "data/tokenize.hpp"

namespace llama3d {
namespace {

std::string text_of(const TokenizeProgress& p) {
  const std::string share =
      p.bytes_total > 0 ? fmt::format("{:3d}%  ", 100 * p.bytes_read / p.bytes_total) : std::string();
  return fmt::format("{}{} read, {} documents, {} tokens", share,
                     format_bytes(static_cast<std::size_t>(p.bytes_read)), p.documents, p.tokens);
}

void show_records(const TokenizeSummary& s) {
  for (const std::string& bad : s.first_bad_records)
    print_log("llama3d: bad record: {}\n", printable(bad, 4000));
  if (s.bad_records > std::ssize(s.first_bad_records)) print_log("llama3d: bad record: ...\n");
  if (s.bad_records > 0)
    print_log("llama3d: warning: {} bad records were left out (--strict ends at the first)\n", s.bad_records);
  if (s.conversations > 0)
    print_result("{} conversations, {} bad records, {} truncated, {:.1f}% of the tokens are targets\n",
                 s.conversations, s.bad_records, s.truncated_documents,
                 100 * static_cast<double>(s.learned_tokens) / static_cast<double>(s.tokens));
}

/// Options that are for inputs of a kind that is not among these.
void refuse_idle_options(const CommandLine& line, const TokenizeOptions& options) {
  const std::vector<InputFormat> formats = input_formats(options);
  const auto none_is = [&](auto&& kind) { return std::none_of(formats.begin(), formats.end(), kind); };
  const auto is_text = [](InputFormat format) { return format == InputFormat::text; };
  if (options.tokenizer == "bytes" && std::all_of(formats.begin(), formats.end(), is_text))
    line.refuse_idle({"invalid-utf8"}, "the byte tokenizer takes any bytes of text files; leave it out");
  if (none_is(is_text))
    line.refuse_idle({"split-documents-on"}, "no input is a text file; leave it out, or see --format");
  if (none_is([](InputFormat format) { return format == InputFormat::jsonl; }))
    line.refuse_idle({"text-field"}, "no input has JSON records with a text; leave it out, or see --format");
  if (none_is(holds_conversations)) {
    const char* why = "no input holds conversations; leave it out, or see --format";
    if (options.cutoff > 0) line.refuse_idle({"cutoff"}, why);
    if (options.loss_on == LossOn::assistant) line.refuse_idle({"loss-on"}, why);
  }
}

}  // namespace

int tokenize_command(int argc, char** argv) {
  return run_local([&] {
    CommandLine line("tokenize", "Turn text, JSON lines and instruction data into a token file.");
    TokenizeOptions options;
    std::vector<std::string> inputs;
    std::string output;
    line.add("tokenizer", options.tokenizer);
    line.add_word("invalid-utf8", options.invalid_utf8, invalid_utf8_from, word_of);
    line.add("input", inputs);
    line.add("output", output);
    line.add_word("format", options.format, input_format_from, word_of);
    line.add("text-field", options.text_field);
    line.add_word("loss-on", options.loss_on, loss_on_from, word_of);
    line.add("cutoff", options.cutoff);
    line.add("strict", options.strict);
    line.add("split-documents-on", options.split_documents_on);
    line.add("threads", options.threads);
    if (line.parse(argc, argv) == CommandLine::Outcome::help) {
      write_result(line.help());
      return 0;
    }
    line.expect_utf8({"text-field", "split-documents-on"});
    if (line.given("split-documents-on") && options.split_documents_on.empty())
      throw ConfigurationError(
          fmt::format("--split-documents-on{}: is empty; give the line that ends a document, or leave it out",
                      line.origin_note("split-documents-on")));
    options.inputs.assign(inputs.begin(), inputs.end());
    options.output = output;
    options.created_by = fmt::format("llama3d {} ({})", version(), git_revision());
    refuse_idle_options(line, options);
    ProgressLine progress;
    const TokenizeSummary s = tokenize_files(options, [&](const TokenizeProgress& p) {
      if (progress.due()) progress.show(text_of(p));
    });
    progress.clear();
    if (!line.given("tokenizer"))
      print_log("llama3d: --tokenizer not given: every byte became a token (vocabulary 259)\n");
    if (!s.tokenizer_doubt.empty())
      print_log("llama3d: warning: tokenizer {}: {}\n", printable(options.tokenizer),
                printable(s.tokenizer_doubt));
    show_records(s);
    print_result("{}: {} documents, {} tokens from {}; unigram entropy {:.4f} nats a token\n",
                 printable(output), s.documents, s.tokens, format_bytes(static_cast<std::size_t>(s.bytes)),
                 s.unigram_entropy);
    return 0;
  });
}

}  // namespace llama3d
