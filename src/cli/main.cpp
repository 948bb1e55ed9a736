#include <fmt/format.h>

#include <array>
#include <string_view>

#include "base/error.hpp"
#include "base/output.hpp"
#include "base/version.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "cli/option_text.hpp"
#include "model/presets.hpp"
#include "options/reference.hpp"

namespace {

struct Command {
  std::string_view name;
  int (*run)(int, char**);
  const char* summary;
};

constexpr std::array<Command, 9> commands = {{
    {"train", llama3d::train_command, "train, under mpirun or srun with one process a GPU"},
    {"eval", llama3d::eval_command,
     "loss and perplexity of a checkpoint or Hugging Face folder on a token file"},
    {"generate", llama3d::generate_command, "text that continues a prompt"},
    {"plan", llama3d::plan_command, "memory of every valid grid for a number of ranks"},
    {"bench", llama3d::bench_command, "time kernels, GEMMs, attention or whole steps"},
    {"tokenize", llama3d::tokenize_command, "text or JSON lines to a token file"},
    {"import", llama3d::import_command, "Hugging Face folder to checkpoint"},
    {"export", llama3d::export_command, "checkpoint to Hugging Face folder"},
    {"inspect", llama3d::inspect_command, "what a checkpoint, token file or metrics file holds"},
}};

void print_usage() {
  llama3d::print_result("llama3d {} ({})\n\nusage: llama3d COMMAND [options]\n\n", llama3d::version(),
                        llama3d::git_revision());
  for (const auto& command : commands) llama3d::print_result("  {:<10} {}\n", command.name, command.summary);
  llama3d::print_result(
      "\n`llama3d COMMAND --help` lists the options of a command, `llama3d --options` all.\n");
}

[[noreturn]] void refuse(std::string_view name) {
  if (name.empty()) throw llama3d::ConfigurationError("no command given; llama3d --help lists them");
  for (const auto& command : commands)
    if (llama3d::edit_distance(name, command.name) <= 2)
      throw llama3d::ConfigurationError(fmt::format("no command {}; did you mean {}?", name, command.name));
  throw llama3d::ConfigurationError(fmt::format("no command {}; llama3d --help lists them", name));
}

}  // namespace

int main(int argc, char** argv) {
  llama3d::prepare_output();
  llama3d::set_log_words(llama3d::with_option_names);
  const std::string_view name = argc > 1 ? argv[1] : "";
  for (const auto& command : commands)
    if (command.name == name) return command.run(argc - 1, argv + 1);
  return llama3d::run_local([&]() -> int {
    if (name == "--help" || name == "-h")
      print_usage();
    else if (name == "--options")
      llama3d::write_result(llama3d::options_reference());
    else if (name == "--version")
      llama3d::print_result("llama3d {} ({})\n", llama3d::version(), llama3d::git_revision());
    else
      refuse(name);
    return 0;
  });
}
