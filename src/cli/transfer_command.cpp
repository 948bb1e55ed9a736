// import and export: weights from a Hugging Face folder and back to one.
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "base/terminal.hpp"
#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cli/launch.hpp"
#include "cli/parsed_line.hpp"
#include "cli/train_options.hpp"
#include "comm/failure.hpp"
#include "convert/weight_transfer.hpp"
#include "options/agreement.hpp"
#include "parallel/runtime.hpp"

namespace llama3d {
namespace {

void show(const TransferProgress& p) {
  const auto percent = p.bytes_total > 0 ? 100 * p.bytes_done / p.bytes_total : 100;
  print_log("\r\033[K{:3d}%  {} of {} written, {}", percent,
            format_bytes(static_cast<std::size_t>(p.bytes_done)),
            format_bytes(static_cast<std::size_t>(p.bytes_total)), printable(p.tensor, 60));
}

using Transfer = std::function<TransferSummary(ControlPlane&, const ShowProgress&)>;

/// Takes the options, those of a job among them, has `transfer` done by all ranks and says what came of it.
/// `read` takes what no option holds as it is.
int run(const Job& job, CommandLine& line, const ParsedLine& parsed, double comm_timeout,
        const std::string& output, const std::function<void()>& read, const Transfer& transfer) {
  ControlPlane& control = job.control;
  auto outcome = CommandLine::Outcome::run;
  fail_together(control, [&] {
    outcome = parsed.outcome();
    if (outcome == CommandLine::Outcome::help) return;
    check_comm_timeout(comm_timeout);
    read();
  });
  const bool leader = control.rank() == 0;
  if (outcome == CommandLine::Outcome::help) {
    if (leader) write_result(line.help());
    return 0;
  }
  expect_same_options(line.command(), line.resolved_json(), control);
  const bool shown = leader && stderr_is_terminal();
  const auto clear = [shown] {
    if (shown) print_log("\r\033[K");
  };
  TransferSummary summary;
  try {
    summary = transfer(control, shown ? show : ShowProgress());
  } catch (...) {
    clear();
    throw;
  }
  clear();
  if (!leader) return 0;
  for (const std::string& note : summary.notes) print_log("{}\n", printable(note, 4000));
  print_result("{}: {} tensors, {} in {} file{}\n", printable(output), summary.tensors,
               format_bytes(static_cast<std::size_t>(summary.bytes)), summary.files,
               summary.files == 1 ? "" : "s");
  std::error_code gone;
  if (std::filesystem::current_path(gone).empty())
    print_log("{} took the place of the folder you are in: enter it anew\n", printable(output));
  return 0;
}

/// The job that `run` is.
int start(CommandLine& line, int argc, char** argv, const std::string& output,
          const std::function<void()>& read, const Transfer& transfer) {
  double comm_timeout = 0;  // ranks that have nothing to write wait for those that have
  line.add("comm-timeout", comm_timeout);
  const ParsedLine parsed(line, argc, argv);
  return run_job(argc, argv, comm_timeout, [&](const Job& job) {
    return run(job, line, parsed, comm_timeout, output, read, transfer);
  });
}

}  // namespace

int import_command(int argc, char** argv) {
  CommandLine line("import", "Make a checkpoint of the weights in a Hugging Face folder.");
  ImportOptions options;
  std::string input, output;
  line.add("input", input);
  line.add("output", output);
  line.add_word("dtype", options.dtype, parse_weight_dtype, name_of);
  line.add("overwrite", options.overwrite);
  const auto read = [&] {
    options.input = input;
    options.output = output;
  };
  return start(line, argc, argv, output, read, [&](ControlPlane& control, const ShowProgress& shown) {
    return import_weights(options, control, shown);
  });
}

int export_command(int argc, char** argv) {
  CommandLine line("export",
                   "Make a Hugging Face folder of a checkpoint's weights, as transformers loads it.");
  ExportOptions options;
  std::string input, output, tokenizer, shard_size = "5GB";
  line.add("input", input);
  line.add("output", output);
  line.add_word("dtype", options.dtype, parse_weight_dtype, name_of);
  line.add("shard-size", shard_size);
  line.add("tokenizer", tokenizer);
  line.add("overwrite", options.overwrite);
  const auto read = [&] {
    const auto bytes = parse_bytes(shard_size);
    if (!bytes)
      throw ConfigurationError(
          fmt::format("--shard-size {}: not a number of bytes; give one such as 5GB or 500MiB", shard_size));
    options.input = input;
    options.output = output;
    options.tokenizer = tokenizer;
    options.shard_bytes = *bytes;
  };
  return start(line, argc, argv, output, read, [&](ControlPlane& control, const ShowProgress& shown) {
    return export_weights(options, control, shown);
  });
}

}  // namespace llama3d
