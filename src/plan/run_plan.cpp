#include "plan/run_plan.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

#include "base/bytes.hpp"
#include "base/host_memory.hpp"

namespace llama3d {
namespace {

using ArenaMember = Arena RankMemory::*;
struct Category {
  const char* name;
  ArenaMember arena;
};
constexpr std::array<Category, 5> categories = {{{"parameters", &RankMemory::parameters},
                                                 {"gradients", &RankMemory::gradients},
                                                 {"optimizer", &RankMemory::optimizer},
                                                 {"activations", &RankMemory::activations},
                                                 {"workspace", &RankMemory::workspace}}};

/// Takes every tensor of a rank, from measuring arenas or real ones.
void lay_out(RankMemory& m, const RankPlan& plan, const Kernels& kernels) {
  const RunShape& s = plan.shape;
  m.state = s.training ? ModelStateMemory::take({m.parameters, m.gradients, m.optimizer, m.host}, plan.table,
                                                s.grid, s.compute(), s.states())
                       : ModelStateMemory::take_weights(m.parameters, m.workspace, plan.table, s.compute());
  m.stage = StageMemory::take(m.activations, m.workspace, plan.layout);
  m.boundaries = PipelineBuffers::take(m.activations, plan.layout.shape, plan.buffers);
  WorkspaceRequest request = plan.layout.shape.workspace();
  request.backward = s.training;
  const auto bytes = static_cast<std::int64_t>(kernels.workspace_bytes(request));
  m.kernel_workspace = m.workspace.take(DType::fp32, {(bytes + 3) / 4});
}

MemoryPlan measure(const RankPlan& plan, const Kernels& kernels) {
  RankMemory measured;
  lay_out(measured, plan, kernels);
  MemoryPlan memory;
  for (const auto& [name, arena] : categories) memory.entries.push_back({name, (measured.*arena).used()});
  memory.host = measured.host.used();
  return memory;
}

/// Of a rank in a step. Tokens are counted in 32 bits; a schedule lists every micro-batch, for all stages.
constexpr std::int64_t most_tokens = INT32_MAX, most_micro_batches = 1 << 16;

void require_positive(const char* option, std::int64_t value) {
  if (value < 1) throw ConfigurationError(fmt::format("{} {}: must be at least 1", option, value));
}

std::vector<LayerRange> partition_of(const RunShape& shape) {
  // Before they are known to be no more than the layers, the global chunks may be too many for an int.
  const std::int64_t parts = std::int64_t{shape.grid.size(Axis::pipeline)} * shape.chunks();
  return shape.pipeline_layers.empty() ? partition_layers(shape.model, parts)
                                       : partition_layers(shape.model, parts, shape.pipeline_layers);
}

StageLayout layout_of(const RunShape& shape, const ProcessGrid& grid, const PipelineShape& pipeline,
                      const std::vector<LayerRange>& partition, int slots, const Kernels& kernels) {
  StageLayout layout;
  layout.shape =
      StageShape::make(shape.model, grid.size(Axis::tensor), shape.micro_batch_size, shape.local_sequence());
  layout.shape.positions = shape.seq_length;
  layout.shape.precision = shape.precision;
  layout.shape.gradient = shape.states().gradient;
  layout.shape.recompute = shape.training ? shape.recompute : Recompute::full;
  layout.shape.logits_bytes = kernels.logits_bytes();
  layout.shape.split_backward = shape.training && shape.pipeline_schedule == ScheduleKind::zero_bubble;
  layout.first_stage = grid.first_stage();
  layout.last_stage = grid.last_stage();
  layout.slots = slots;
  for (int chunk = 0; chunk < pipeline.chunks; ++chunk)
    layout.chunks.push_back(
        partition[static_cast<std::size_t>(pipeline.global_chunk(grid.rank(Axis::pipeline), chunk))]);
  return layout;
}

/// Of the rank that needs most, with what the device has reserved. Ranks of one stage need the same, whatever
/// their place along the other axes.
MemoryPlan largest_plan(const RunShape& shape, const Kernels& kernels, const DeviceCapacity& capacity) {
  MemoryPlan most;
  std::size_t host = 0;
  const ProcessGrid first(shape.grid, 0);
  // One by one: a grid of too many stages is refused by its first rank's plan, before they are listed.
  for (int stage = 0; stage < first.size(Axis::pipeline); ++stage) {
    MemoryPlan memory = make_rank_plan(shape, first.member(Axis::pipeline, stage), kernels).memory;
    host = std::max(host, memory.host);
    if (!capacity.host && memory.host > 0) memory.entries.push_back({"offloaded", memory.host});
    if (memory.total() > most.total()) most = std::move(memory);
  }
  most.host = capacity.host ? host : 0;
  if (capacity.reserved > 0) most.entries.push_back({"device", capacity.reserved});
  return most;
}

/// An option that needs less memory. `apply` changes nothing where it is set already or has no effect.
struct Saving {
  const char* option;
  void (*apply)(RunShape&);
};

/// Those that cost least first: time, then exactness.
constexpr std::array<Saving, 9> savings{{
    {"`no_pipeline_receive_ahead`", [](RunShape& s) { s.pipeline_receive_ahead = false; }},
    {"`recompute cheap`",
     [](RunShape& s) {
       if (s.recompute == Recompute::none) s.recompute = Recompute::cheap;
     }},
    {"`micro_batch_size 1`", [](RunShape& s) { s.micro_batch_size = 1; }},
    {"`offload_optimizer`", [](RunShape& s) { s.offload_optimizer = true; }},
    {"`recompute full`", [](RunShape& s) { s.recompute = Recompute::full; }},
    {"`precision bf16`", [](RunShape& s) { s.precision = &precision_of(DType::bf16); }},
    {"`gradient_dtype bf16`",
     [](RunShape& s) {
       if (s.compute() == DType::bf16) s.gradient_dtype = DType::bf16;
     }},
    {"`optimizer_dtype bf16`", [](RunShape& s) { s.optimizer_dtype = DType::bf16; }},
    {"`master_weights none`", [](RunShape& s) { s.master_weights = false; }},
}};

/// Options that together make the run fit, none of them to spare; or, where all do not, every one that helps.
std::string advice(const RunShape& shape, const Kernels& kernels, const DeviceCapacity& capacity) {
  std::array<bool, savings.size()> chosen{};
  const auto needs = [&] {
    RunShape changed = shape;
    for (std::size_t i = 0; i < savings.size(); ++i)
      if (chosen[i]) savings[i].apply(changed);
    const MemoryPlan memory = largest_plan(changed, kernels, capacity);
    return capacity.host && memory.host > *capacity.host ? SIZE_MAX : memory.total();
  };
  std::size_t needed = needs();
  for (std::size_t i = 0; i < savings.size() && needed > capacity.bytes; ++i) {
    chosen[i] = true;
    const std::size_t now = needs();
    chosen[i] = now < needed;
    needed = std::min(needed, now);
  }
  const bool fits = needed <= capacity.bytes;
  // What costs least was taken first, so what costs most is the first to be spared.
  for (std::size_t i = savings.size(); i-- > 0;)
    if (chosen[i]) {
      chosen[i] = false;
      chosen[i] = needs() > (fits ? capacity.bytes : needed);
    }
  std::string options;
  for (std::size_t i = 0; i < savings.size(); ++i)
    if (chosen[i]) options += fmt::format("{}{}", options.empty() ? "" : " ", savings[i].option);
  if (fits) return fmt::format("with {} it needs {} and fits", options, format_bytes(needs()));
  const std::string more = "raise `tp_size` or `pp_size`, or lower `seq_length`";
  return options.empty() ? more
                         : fmt::format("even with {} it needs {}: {}", options, format_bytes(needed), more);
}

}  // namespace

int RunShape::micro_batches() const {
  require_positive("`micro_batch_size`", micro_batch_size);
  require_positive("`global_batch_size`", global_batch());
  require_positive("`seq_length`", seq_length);
  if (micro_batch_size > most_tokens / seq_length)
    throw ConfigurationError(
        fmt::format("`micro_batch_size {}` of `seq_length {}`: a micro-batch has at most {} tokens; use at "
                    "most {}",
                    micro_batch_size, seq_length, most_tokens, most_tokens / seq_length));
  const int replicas = grid.size(Axis::data);
  const std::int64_t each = micro_batch_size * replicas;
  if (global_batch() % each != 0)
    throw ConfigurationError(fmt::format(
        "`global_batch_size {}` is not a multiple of micro-batch size {} x DP {}; use a multiple of {}",
        global_batch(), micro_batch_size, replicas, each));
  const std::int64_t count = global_batch() / each;
  const std::int64_t most = std::min(most_micro_batches, most_tokens / (micro_batch_size * seq_length));
  if (count > most)
    throw ConfigurationError(
        fmt::format("`global_batch_size {}`: {} micro-batches of {} tokens a rank; use a global batch of at "
                    "most {}{}",
                    global_batch(), count, micro_batch_size * seq_length, most * each,
                    most == most_micro_batches ? ", or a larger `micro_batch_size`" : ""));
  return static_cast<int>(count);
}

std::int64_t RunShape::local_sequence() const {
  const int ranks = grid.size(Axis::context);
  if (seq_length % ranks != 0)
    throw ConfigurationError(
        fmt::format("`seq_length {}` is not divisible by CP {}; use a multiple of it", seq_length, ranks));
  return seq_length / ranks;
}

std::size_t MemoryPlan::total() const {
  return std::accumulate(entries.begin(), entries.end(), std::size_t{0},
                         [](std::size_t sum, const Entry& entry) { return sum + entry.bytes; });
}

std::string MemoryPlan::to_string() const {
  std::string text;
  for (const auto& [category, bytes] : entries)
    text += fmt::format("  {:<12} {:>12}\n", category, format_bytes(bytes));
  text += fmt::format("  {:<12} {:>12}", "total", format_bytes(total()));
  if (host > 0) text += fmt::format("\n  {:<12} {:>12}", "pinned host", format_bytes(host));
  return text;
}

std::string MemoryPlan::summary() const {
  std::string text;
  for (const auto& [category, bytes] : entries)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", category, format_bytes(bytes));
  return text;
}

RankPlan make_rank_plan(const RunShape& shape, int rank, const Kernels& kernels) {
  if (shape.seq_length > shape.model.max_positions)
    throw ConfigurationError(fmt::format("`seq_length {}`: {} has positions for {}; use at most that",
                                         shape.seq_length, shape.model.name, shape.model.max_positions));
  const PipelineShape pipeline = shape.pipeline();
  const ProcessGrid grid(shape.grid, rank);
  auto partition = partition_of(shape);
  ParameterTable table(shape.model, grid, partition);
  const auto stage = static_cast<std::size_t>(grid.rank(Axis::pipeline));
  check_schedule(shape.pipeline_schedule,
                 pipeline);  // an evaluation's stages have the chunks of the kind, too
  const auto schedule_of = [&](ReceiveStart receives) {
    return (shape.training ? make_schedule(shape.pipeline_schedule, pipeline, receives)
                           : make_forward_schedule(pipeline))
        .ranks[stage];
  };
  RankSchedule schedule = schedule_of(ReceiveStart::when_needed), later_steps = schedule_of(shape.receives());
  const auto buffers = PipelineBufferCounts::of(schedule).at_least(PipelineBufferCounts::of(later_steps));
  const StageLayout layout = layout_of(shape, grid, pipeline, partition, buffers.slots, kernels);
  if (shape.overlap().blocks > 0 && layout.shape.shard_rows % shape.overlap().blocks != 0)
    throw ConfigurationError(fmt::format(
        "`tp_overlap_blocks {}`: a rank has {} rows of a micro-batch, which are no multiple; use a divisor",
        shape.overlap().blocks, layout.shape.shard_rows));
  RankPlan plan{shape,
                grid,
                pipeline,
                std::move(partition),
                std::move(table),
                std::move(schedule),
                std::move(later_steps),
                layout,
                buffers,
                {}};
  plan.memory = measure(plan, kernels);
  return plan;
}

RankMemory allocate(const RankPlan& plan, Device& device) {
  RankMemory memory;
  for (std::size_t i = 0; i < categories.size(); ++i)
    memory.*categories[i].arena =
        Arena(device.allocate(plan.memory.entries[i].bytes), plan.memory.entries[i].bytes);
  if (plan.memory.host > 0) memory.host = Arena(device.allocate_host(plan.memory.host), plan.memory.host);
  lay_out(memory, plan, device.kernels());
  device.kernels().set_workspace(memory.kernel_workspace);
  device.kernels().set_use(plan.shape.training ? KernelUse::training : KernelUse::inference);
  return memory;
}

DeviceCapacity DeviceCapacity::of(const Device& device, int node_ranks) {
  const auto ranks = static_cast<std::size_t>(node_ranks);
  if (device.kind() == "cpu") return {device.memory_bytes() / ranks, 0, std::nullopt};
  return {device.memory_bytes(), device.memory_in_use(), available_host_memory() / ranks};
}

MemoryPlan check_fits(const RunShape& shape, const Kernels& kernels, const DeviceCapacity& capacity) {
  MemoryPlan most = largest_plan(shape, kernels, capacity);
  if (capacity.host && most.host > *capacity.host)
    throw ConfigurationError(
        fmt::format("`offload_optimizer` keeps {} a rank in host memory, of {} there are; use "
                    "`optimizer_dtype bf16`, `master_weights none`, or more ranks on more nodes",
                    format_bytes(most.host), format_bytes(*capacity.host)));
  if (most.total() > capacity.bytes)
    throw ConfigurationError(fmt::format("the run needs {} a rank, of {} there are ({}); {}",
                                         format_bytes(most.total()), format_bytes(capacity.bytes),
                                         most.summary(), advice(shape, kernels, capacity)));
  return most;
}

}  // namespace llama3d
