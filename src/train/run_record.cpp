#include "train/run_record.hpp"

#include <fmt/format.h>

#include <set>

#include "base/bytes.hpp"
#include "base/version.hpp"

namespace llama3d {
namespace {
std::map<std::string, std::int64_t> sizes_of(const GridShape& grid) {
  std::map<std::string, std::int64_t> sizes;
  for (const Axis axis : all_axes) sizes[std::string(name_of(axis))] = grid.size(axis);
  return sizes;
}

}  // namespace

std::string method(const RunShape& shape) {
  std::string text = shape.grid.to_string();
  if (shape.grid.size(Axis::pipeline) == 1) return text;
  text += fmt::format(", {}", name_of(shape.pipeline_schedule));
  if (receive_start_of(shape.pipeline_schedule, shape.pipeline(), shape.receives()) == ReceiveStart::ahead)
    text += ", receives ahead";
  return text;
}

std::string describe_run(const TrainSettings& s, const RunShape& shape, const Device& device) {
  return fmt::format(
      "llama3d {}: {} ({:.2f} M parameters, {}) on {}\n"
      "grid: {}; {} sequences of {} tokens a step, micro-batch {}, {} accumulated",
      version(), shape.model.name, static_cast<double>(shape.model.parameters()) / 1e6, shape.precision->name,
      device.name(), method(shape), shape.global_batch(), s.seq_length, shape.micro_batch_size,
      shape.micro_batches());
}

void record_run_attributes(MetricsRecorder& metrics, const TrainSettings& s, const RunShape& shape,
                           TensorParallelOverlap overlap, Runtime& runtime) {
  std::string hosts;
  std::set<std::string> seen;
  for (const auto& host : runtime.control.all_gather(runtime.control.host()))
    if (seen.insert(host).second) hosts += (hosts.empty() ? "" : ",") + host;
  std::int64_t nodes = 0;
  for (const auto& node_rank : runtime.control.all_gather(std::to_string(runtime.control.node_rank())))
    nodes += node_rank == "0";
  const auto integer = [](auto value) { return static_cast<std::int64_t>(value); };
  metrics.attribute("command_line", s.command_line);
  metrics.attribute("configuration", s.configuration);
  for (const Axis axis : all_axes)
    metrics.attribute(std::string(name_of(axis)), integer(shape.grid.size(axis)));
  metrics.attribute("world_size", integer(shape.grid.world()));
  metrics.attribute("pipeline_schedule", std::string(name_of(shape.pipeline_schedule)));
  metrics.attribute("method", method(shape));
  metrics.attribute("tp_overlap_blocks", integer(overlap.enabled ? overlap.blocks : 0));
  metrics.attribute("model", shape.model.name);
  metrics.attribute("parameters", shape.model.parameters());
  metrics.attribute("micro_batch_size", shape.micro_batch_size);
  metrics.attribute("gradient_accumulation", integer(shape.micro_batches()));
  metrics.attribute("global_batch_size", shape.global_batch());
  metrics.attribute("sequence", shape.seq_length);
  metrics.attribute("precision", std::string(shape.precision->name));
  metrics.attribute("hosts", hosts);
  metrics.attribute("nodes", nodes);
  metrics.attribute("ranks_per_node", runtime.control.all_max(runtime.control.node_size()));
  metrics.attribute("device", runtime.device.name());
  metrics.attribute("version", version());
  metrics.attribute("git_revision", git_revision());
  metrics.attribute("flops_formula",
                    "6 * matrix_parameters + 6 * layers * heads * head_dim * sequence, a token");
  metrics.attribute("flops_per_token", shape.model.training_flops_per_token(shape.seq_length));
  metrics.attribute("peak_flops", runtime.device.peak_flops(shape.compute()).value_or(std::nan("")));
  metrics.attribute("peak_source", runtime.device.peak_source());
}

CheckpointAttributes checkpoint_attributes(const TrainSettings& s, const RunShape& shape,
                                           const TrainingBatches& batches) {
  return {.model = shape.model,
          .origin = {},
          .run = RunRecord{.position = {},
                           .grid = shape.grid.to_string(),
                           .grid_sizes = sizes_of(shape.grid),
                           .seed = s.seed,
                           .sequence = shape.seq_length,
                           .global_batch = shape.global_batch(),
                           .data = batches.identity(),
                           .packing = std::string(batches.packing()),
                           .valid_fraction = s.valid_fraction,
                           .separate_documents = s.separate_documents,
                           .tokenizer = {batches.tokens().tokenizer, batches.tokens().tokenizer_hash},
                           .configuration = s.configuration}};
}

}  // namespace llama3d
