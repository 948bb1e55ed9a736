#include <csignal>
#include <cstddef>
#include <cstring>
#include <new>
#include <optional>
#include <string>

#include "base/output.hpp"
#include "base/printable.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/parsed_line.hpp"
#include "cli/train_options.hpp"
#include "comm/failure.hpp"
#include "compute/kernels.hpp"
#include "options/agreement.hpp"
#include "train/run_check.hpp"
#include "train/signals.hpp"
#include "train/trainer.hpp"

namespace llama3d {
namespace {

std::string joined(int argc, char** argv) {
  std::string text = "llama3d";
  for (int i = 0; i < argc; ++i) text += std::string(" ") + argv[i];
  return text;
}

struct TrainCommand {
  TrainSettings settings;
  MachineOptions machine;
  bool print_config = false, dry_run = false;
  int dry_run_ranks = 0;
  CommandLine line{"train", "Train Llama 3 with tensor, pipeline and data parallelism."};

  TrainCommand() {
    line.add_settings(settings);
    line.set_default_text("min-learning-rate", fmt::format("{}", lowest_learning_rate(settings)));
    add_machine_options(line, machine);
    line.add("print-config", print_config);
    line.add("dry-run", dry_run);
    line.add("dry-run-ranks", dry_run_ranks);
  }

  /// What a run is made by, without what lets this call only look at it.
  std::string configuration() const { return line.resolved({"print-config", "dry-run", "dry-run-ranks"}); }
};

void check_options(TrainCommand& command) {
  complete_training_options(command.line, command.settings);
  check_settings(command.settings);
  if (command.dry_run_ranks < 0)
    throw ConfigurationError(fmt::format("--dry-run-ranks {}: must be 0 or more", command.dry_run_ranks));
  if (command.dry_run_ranks > 0 && !command.dry_run)
    throw ConfigurationError(
        fmt::format("--dry-run-ranks {}{}: is for --dry-run; give that too, or start so many ranks",
                    command.dry_run_ranks, command.line.origin_note("dry-run-ranks")));
}

void dry_run(const TrainCommand& command, const ControlPlane& control, Device& device) {
  const TrainSettings& settings = command.settings;
  const bool assumed = command.dry_run_ranks > 0;
  const int ranks = assumed ? command.dry_run_ranks : control.size();
  if (const auto least = std::int64_t{settings.tp_size} * settings.pp_size; !assumed && ranks < least)
    throw ConfigurationError(
        fmt::format("--dry-run of --tp-size {} x --pp-size {} on {} ranks; --dry-run-ranks {} assumes more",
                    settings.tp_size, settings.pp_size, ranks, least));
  const RunCheck run = check_run(settings, control.rank(), ranks, assumed, device, device.kernels());
  if (control.rank() != 0) return;
  print_result("{}\nmemory of the largest rank:\n{}\n{}\n", printable_lines(run.data), run.memory.to_string(),
               assumed ? "all else checked: the run can start where each rank has this memory"
                       : "everything checked: the run can start");
}

/// What does not train ends on a signal as other programs do, on one that has come already, too.
void let_signals_end(std::optional<SignalGuard>& guard) {
  guard.reset();
  if (const int signal = SignalGuard::received()) std::raise(signal);
}

int run(const Job& job, std::optional<SignalGuard>& guard, TrainCommand& command, const ParsedLine& parsed,
        int argc, char** argv) {
  ControlPlane& control = job.control;
  auto outcome = CommandLine::Outcome::run;
  fail_together(control, [&] {
    outcome = parsed.outcome();
    if (outcome != CommandLine::Outcome::help) check_options(command);
  });
  const bool leader = control.rank() == 0;
  if (outcome == CommandLine::Outcome::help || command.print_config) {
    const bool help = outcome == CommandLine::Outcome::help;
    if (leader) write_result(help ? command.line.help() : command.configuration());
    return 0;
  }
  expect_same_options(command.line.command(), command.line.resolved_json(), control);
  command.settings.command_line = joined(argc, argv);
  command.settings.configuration = command.line.resolved_json();
  if (command.dry_run) {
    let_signals_end(guard);
    const auto device = make_job_device(command.machine, control);
    fail_together(control, [&] { dry_run(command, control, *device); });
    return 0;
  }
  return train_in(job, command.settings, command.machine);
}

/// A process that is being started has no handlers for some tenths of a second: libraries are initialized
/// before main. A signal that comes then would end it, so the guard begins before them.
alignas(SignalGuard) std::byte early_memory[sizeof(SignalGuard)];
SignalGuard* early_guard = nullptr;
void guard_early(int argc, char** argv, char**) {
  if (argc > 1 && std::strcmp(argv[1], "train") == 0) early_guard = new (early_memory) SignalGuard;
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**,
                                                                             char**) = guard_early;

}  // namespace

int train_command(int argc, char** argv) {
  std::optional<SignalGuard> guard(std::in_place);
  if (early_guard) early_guard->~SignalGuard();  // one within another: the handlers stay
  TrainCommand command;
  const ParsedLine parsed(command.line, argc, argv);
  return run_job(argc, argv, command.settings.comm_timeout,
                 [&](const Job& job) { return run(job, guard, command, parsed, argc, argv); });
}

}  // namespace llama3d
