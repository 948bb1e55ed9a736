#include <fmt/format.h>

#include <cmath>

#include "base/output.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/parsed_line.hpp"
#include "cli/train_options.hpp"
#include "comm/failure.hpp"
#include "options/agreement.hpp"
#include "train/evaluator.hpp"

namespace llama3d {
namespace {

struct EvalCommand {
  TrainSettings settings;
  MachineOptions machine;
  CommandLine line{"eval", "Loss and perplexity of a checkpoint or a Hugging Face folder on a token file."};

  EvalCommand() {
    settings.seq_length = 0;
    settings.valid_samples = 0;
    line.add_settings(settings);
    add_machine_options(line, machine);
  }
};

int run(const Job& job, EvalCommand& command, const ParsedLine& parsed) {
  ControlPlane& control = job.control;
  auto outcome = CommandLine::Outcome::run;
  fail_together(control, [&] {
    outcome = parsed.outcome();
    if (outcome == CommandLine::Outcome::help) return;
    if (command.settings.valid_samples < 0)
      throw ConfigurationError(
          fmt::format("--samples {}: must be 0 (all) or more", command.settings.valid_samples));
    refuse_idle_shape_options(command.line, command.settings);
    check_settings(command.settings, command.line.command());
  });
  const bool leader = control.rank() == 0;
  if (outcome == CommandLine::Outcome::help) {
    if (leader) write_result(command.line.help());
    return 0;
  }
  expect_same_options(command.line.command(), command.line.resolved_json(), control);
  const auto device = make_job_device(command.machine, control);
  Runtime runtime = make_runtime(job, *device, command.machine);
  const Evaluation e = evaluate_weights(command.settings, runtime);
  if (leader)
    print_result("loss {:.6f}  perplexity {:.4f}  targets {:.0f}\n", e.loss, std::exp(e.loss), e.targets);
  return 0;
}

}  // namespace

int eval_command(int argc, char** argv) {
  EvalCommand command;
  const ParsedLine parsed(command.line, argc, argv);
  return run_job(argc, argv, command.settings.comm_timeout,
                 [&](const Job& job) { return run(job, command, parsed); });
}

}  // namespace llama3d
