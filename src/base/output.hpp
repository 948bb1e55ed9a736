#pragma once
// What a command writes for people. Results go to standard output and must arrive: an error ends the command.
// Progress, warnings and errors go to standard error as far as it takes them: they never decide over the
// work.

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace llama3d {

/// For the start of a process, before it opens files. A pipe without a reader and a file at its size limit
/// become errors of the write that meets them, instead of signals that end the process; a standard descriptor
/// that the caller closed fails to be written, instead of becoming that of the next file.
void prepare_output();

/// Adds to the results. Throws Error when standard output cannot be written. When its reader is gone, ends
/// the process by SIGPIPE without a word, as other programs in a pipeline end, unless the caller ignores
/// SIGPIPE.
void write_result(std::string_view text);
template <class... Values>
void print_result(fmt::format_string<Values...> format, Values&&... values) {
  write_result(fmt::format(format, std::forward<Values>(values)...));
}
/// Hands on what was written, with the errors of write_result.
void flush_results();

/// What becomes of a text before it is written to standard error; as it is if not told. For the start of a
/// process: the command line puts its options where the libraries name fields of settings.
void set_log_words(std::string (*words)(std::string_view text));

/// Writes to standard error, from any thread. Errors are dropped, and so is text that standard error does not
/// take for a while (a pager that waits, a stopped terminal): the next text that goes through says so.
void write_log(std::string_view text) noexcept;
template <class... Values>
void print_log(fmt::format_string<Values...> format, Values&&... values) {
  write_log(fmt::format(format, std::forward<Values>(values)...));
}

}  // namespace llama3d
