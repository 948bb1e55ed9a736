#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "base/output.hpp"
#include "base/printable.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "cli/option_text.hpp"
#include "cli/train_options.hpp"
#include "compute/kernels.hpp"
#include "train/run_shape.hpp"

namespace llama3d {
namespace {

struct PlannedGrid {
  RunShape shape;
  MemoryPlan memory;
};

/// Least first.
std::vector<int> divisors_of(int number) {
  std::vector<int> divisors;
  for (int d = 1; d <= number / d; ++d)
    if (number % d == 0) divisors.insert(divisors.end(), {d, number / d});
  std::sort(divisors.begin(), divisors.end());
  divisors.erase(std::unique(divisors.begin(), divisors.end()), divisors.end());
  return divisors;
}

/// Sizes of the grids to plan.
struct GridChoice {
  int ranks;
  std::vector<int> tp_sizes, pp_sizes;
};

/// Those of the choice that the model and the batch allow, least memory first. Throws ConfigurationError
/// where there are none, with what is wrong with the smallest: larger ones may fail by their size alone.
std::vector<PlannedGrid> plan_grids(TrainSettings settings, const GridChoice& choice,
                                    const Kernels& kernels) {
  const ModelConfig model = load_model_config(settings.model);
  std::vector<PlannedGrid> grids;
  std::string refusal;
  for (const int tp : choice.tp_sizes)
    for (const int pp : choice.pp_sizes) {
      settings.tp_size = tp;
      settings.pp_size = pp;
      try {
        const RunShape shape = run_shape(settings, model, choice.ranks);
        grids.push_back({shape, check_fits(shape, kernels, {.bytes = SIZE_MAX, .host = SIZE_MAX})});
      } catch (const ConfigurationError& error) {
        if (refusal.empty())
          refusal = fmt::format("with TP {} x PP {}: {}", tp, pp, with_option_names(error.what()));
      }
    }
  if (grids.empty())
    throw ConfigurationError(
        fmt::format("no grid of {} ranks suits {}; {}", choice.ranks, settings.model, refusal));
  std::sort(grids.begin(), grids.end(),
            [](const PlannedGrid& a, const PlannedGrid& b) { return a.memory.total() < b.memory.total(); });
  return grids;
}

/// What the table is of.
void print_head(const TrainSettings& settings, int ranks, const Device& device) {
  print_result("{} on {} ranks ({}): sequences of {} tokens, micro-batches of {}, ",
               printable(settings.model), ranks, device.name(), settings.seq_length,
               settings.micro_batch_size);
  if (settings.global_batch_size > 0) print_result("{} a step, ", settings.global_batch_size);
  print_result("{}, gradients {}, moments {}, master weights {}, --recompute {}, {}{}\n\n",
               settings.precision->name, name_of(settings.gradient_dtype), name_of(settings.optimizer_dtype),
               settings.precision->compute == DType::bf16 && settings.master_weights ? "fp32" : "none",
               name_of(settings.recompute), name_of(settings.pipeline_schedule),
               settings.pipeline_receive_ahead ? ", --pipeline-receive-ahead" : "");
}

void print_table(const std::vector<PlannedGrid>& grids) {
  print_result("{:<28} {:>8}", "grid", "grad acc");
  for (const auto& entry : grids.front().memory.entries) print_result(" {:>12}", entry.category);
  const bool offloads = grids.front().memory.host > 0;
  print_result(" {:>12}{}\n", "total/rank", offloads ? "  pinned host" : "");
  for (const auto& [shape, memory] : grids) {
    print_result("{:<28} {:>8}", shape.grid.to_string(), shape.micro_batches());
    for (const auto& entry : memory.entries) print_result(" {:>12}", format_bytes(entry.bytes));
    print_result(" {:>12}", format_bytes(memory.total()));
    if (offloads) print_result(" {:>12}", format_bytes(memory.host));
    print_result("\n");
  }
}

}  // namespace

int plan_command(int argc, char** argv) {
  return run_local([&] {
    CommandLine line(
        "plan",
        "Memory that every valid grid takes, least first, without a GPU; --tp-size and --pp-size "
        "leave those with them.");
    TrainSettings settings;
    MachineOptions machine;
    settings.model = "llama3-tiny";
    int ranks = 8;
    line.add("ranks", ranks);
    line.add_settings(settings);
    add_machine_options(line, machine);
    if (line.parse(argc, argv) == CommandLine::Outcome::help) {
      write_result(line.help());
      return 0;
    }
    if (ranks < 1) throw ConfigurationError(fmt::format("--ranks {}: must be at least 1", ranks));
    refuse_idle_shape_options(line, settings);
    check_settings(settings, line.command());
    const auto sizes = [&](const char* option, int value) {
      return line.given(option) ? std::vector<int>{value} : divisors_of(ranks);
    };
    const GridChoice choice{ranks, sizes("tp-size", settings.tp_size), sizes("pp-size", settings.pp_size)};
    const auto device = make_device(machine, *make_local_control_plane());
    const auto grids = plan_grids(settings, choice, device->kernels());
    print_head(settings, ranks, *device);
    print_table(grids);
    return 0;
  });
}

}  // namespace llama3d
