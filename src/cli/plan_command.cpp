#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "cli/backend.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "cli/train_options.hpp"
#include "compute/kernels.hpp"
#include "train/run_shape.hpp"

namespace llama3d {
namespace {

struct PlannedGrid {
  RunShape shape;
  MemoryPlan memory;
};

/// Every TP x PP x DP of `ranks` that the model and the batch allow, least memory first.
std::vector<PlannedGrid> plan_grids(TrainSettings settings, int ranks, const Kernels& kernels) {
  std::vector<PlannedGrid> grids;
  for (settings.tp_size = 1; settings.tp_size <= ranks; ++settings.tp_size)
    for (settings.pp_size = 1; settings.tp_size * settings.pp_size <= ranks; ++settings.pp_size) {
      if (ranks % (settings.tp_size * settings.pp_size) != 0) continue;
      try {
        const RunShape shape = run_shape(settings, ranks);
        grids.push_back({shape, check_fits(shape, kernels, {.bytes = SIZE_MAX, .host = SIZE_MAX})});
      } catch (const ConfigurationError&) {
        // This grid does not suit the model; others may.
      }
    }
  std::sort(grids.begin(), grids.end(),
            [](const PlannedGrid& a, const PlannedGrid& b) { return a.memory.total() < b.memory.total(); });
  return grids;
}

/// What the table is of.
void print_head(const TrainSettings& settings, int ranks, const Device& device) {
  fmt::print("{} on {} ranks ({}): sequences of {} tokens, micro-batches of {}, ", settings.model, ranks,
             device.name(), settings.seq_length, settings.micro_batch_size);
  if (settings.global_batch_size > 0) fmt::print("{} a step, ", settings.global_batch_size);
  fmt::print("{}, gradients {}, moments {}, master weights {}, --recompute {}, {}{}\n\n",
             name_of(settings.precision), name_of(settings.gradient_dtype), name_of(settings.optimizer_dtype),
             settings.precision == DType::bf16 && settings.master_weights ? "fp32" : "none",
             name_of(settings.recompute), name_of(settings.pipeline_schedule),
             settings.pipeline_receive_ahead ? ", --pipeline-receive-ahead" : "");
}

void print_table(const std::vector<PlannedGrid>& grids) {
  fmt::print("{:<28} {:>8}", "grid", "grad acc");
  for (const auto& entry : grids.front().memory.entries) fmt::print(" {:>12}", entry.category);
  const bool offloads = grids.front().memory.host > 0;
  fmt::print(" {:>12}{}\n", "total/rank", offloads ? "  pinned host" : "");
  for (const auto& [shape, memory] : grids) {
    fmt::print("{:<28} {:>8}", shape.grid.to_string(), shape.micro_batches());
    for (const auto& entry : memory.entries) fmt::print(" {:>12}", format_bytes(entry.bytes));
    fmt::print(" {:>12}", format_bytes(memory.total()));
    if (offloads) fmt::print(" {:>12}", format_bytes(memory.host));
    fmt::print("\n");
  }
}

}  // namespace

int plan_command(int argc, char** argv) {
  return run_local([&] {
    CommandLine line("plan", "Memory that every valid grid takes, least first, without a GPU.");
    TrainSettings settings;
    MachineOptions machine;
    settings.model = "llama3-tiny";
    int ranks = 8;
    line.add("ranks", ranks, "processes in all");
    add_shape_options(line, settings);
    add_machine_options(line, machine);
    if (line.parse(argc, argv) == CommandLine::Outcome::help) {
      fmt::print("{}", line.help());
      return 0;
    }
    if (ranks < 1) throw ConfigurationError(fmt::format("--ranks {}: must be at least 1", ranks));
    load_model_config(settings.model);
    const auto device = make_device(machine, *make_local_control_plane());
    const auto grids = plan_grids(settings, ranks, device->kernels());
    if (grids.empty())
      throw ConfigurationError(
          fmt::format("no grid of {} ranks suits {} with this batch; change --ranks or --global-batch-size",
                      ranks, settings.model));
    print_head(settings, ranks, *device);
    print_table(grids);
    return 0;
  });
}

}  // namespace llama3d
