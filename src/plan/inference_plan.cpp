#include "plan/inference_plan.hpp"

#include <array>
#include <utility>

#include "base/bytes.hpp"

namespace llama3d {
namespace {

constexpr std::array<std::pair<const char*, Arena InferenceArenas::*>, 4> categories = {
    {{"parameters", &InferenceArenas::parameters},
     {"cache", &InferenceArenas::cache},
     {"activations", &InferenceArenas::activations},
     {"workspace", &InferenceArenas::workspace}}};

/// Takes every tensor of a rank, from measuring arenas or real ones.
void lay_out(InferenceArenas& m, const InferencePlan& plan, const Kernels& kernels) {
  m.weights = m.parameters.take(plan.shape.compute, {plan.table.arena_elements()});
  m.model = InferenceMemory::take(m.cache, m.activations, plan.layout);
  WorkspaceRequest request = plan.layout.shape.workspace();
  request.backward = false;
  const auto bytes = static_cast<std::int64_t>(kernels.workspace_bytes(request));
  m.kernel_workspace = m.workspace.take(DType::fp32, {(bytes + 3) / 4});
}

std::string advice(const InferencePlan& plan) {
  std::string options;
  if (plan.shape.sequences > 1) options += "lower `batch_size`, ";
  if (plan.shape.compute == DType::fp32) options += "use `precision` bf16, ";
  return options + "lower `max_new_tokens`, shorten the prompt, or raise `tp_size`";
}

}  // namespace

InferencePlan make_inference_plan(const InferenceShape& shape, int tp_rank, const Kernels& kernels) {
  if (shape.capacity > shape.model.max_positions)
    throw ConfigurationError(fmt::format(
        "prompt and answer take {} tokens, and {} has positions for {}; lower `max_new_tokens` or "
        "shorten the prompt",
        shape.capacity, shape.model.name, shape.model.max_positions));
  const ProcessGrid grid({.tp = shape.tp}, tp_rank);
  InferencePlan plan{shape,
                     grid,
                     ParameterTable(shape.model, grid, partition_layers(shape.model, 1)),
                     InferenceLayout::make(shape.model, shape.tp, shape.compute, shape.sequences,
                                           shape.capacity, shape.rows),
                     {}};
  InferenceArenas measured;
  lay_out(measured, plan, kernels);
  for (const auto& [name, arena] : categories)
    plan.memory.entries.push_back({name, (measured.*arena).used()});
  return plan;
}

InferenceArenas allocate(const InferencePlan& plan, Device& device) {
  InferenceArenas arenas;
  for (std::size_t i = 0; i < categories.size(); ++i) {
    const std::size_t bytes = plan.memory.entries[i].bytes;
    arenas.*categories[i].second = Arena(device.allocate(bytes), bytes);
  }
  lay_out(arenas, plan, device.kernels());
  device.kernels().set_workspace(arenas.kernel_workspace);
  device.kernels().set_use(KernelUse::inference);
  return arenas;
}

void check_fits(const InferencePlan& plan, const DeviceCapacity& capacity) {
  const std::size_t needed = plan.memory.total() + capacity.reserved;
  if (needed > capacity.bytes)
    throw ConfigurationError(fmt::format(
        "generation needs {} a rank, of {} there are ({}, device {}); {}", format_bytes(needed),
        format_bytes(capacity.bytes), plan.memory.summary(), format_bytes(capacity.reserved), advice(plan)));
}

}  // namespace llama3d
