#include "train/overlap_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "compute/kernels.hpp"

namespace llama3d {
namespace {

constexpr std::array block_counts = {1, 2, 4, 8};
constexpr std::int64_t fewest_rows = 256;  // of a block: GEMMs of fewer don't fill a GPU
constexpr int warmup = 2, repeats = 6;
constexpr double margin = 0.03;

/// Random weights, inputs and gradients, and rows that are whole sequences.
void fill_at_random(const RankPlan& plan, const RankMemory& memory, Stage& stage, Kernels& kernels,
                    Stream& stream) {
  const auto fill = [&](const Tensor& tensor, std::uint64_t key, float deviation) {
    kernels.fill_normal(tensor.reshape({1, tensor.elements()}), key, 0, 0, tensor.elements(), deviation,
                        stream);
  };
  fill(memory.state.parameters, 1, 0.02f);
  fill(memory.boundaries.inputs.front(), 2, 1);
  const std::int64_t rows = plan.layout.shape.rows, sequence = plan.shape.seq_length;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows)), start, end, position;
  for (std::int64_t t = 0; t < rows; ++t) {
    const std::int64_t begin = t / sequence * sequence;
    start.push_back(static_cast<std::int32_t>(begin));
    end.push_back(static_cast<std::int32_t>(std::min(rows, begin + sequence)));
    position.push_back(static_cast<std::int32_t>(t - begin));
  }
  stage.load(0, {ids, ids, start, end, position});
}

/// Of the forward and backward of a layer, on the slowest rank.
double time_layer(const RankMemory& memory, Stage& stage, Device& device, Stream& stream,
                  ControlPlane& control) {
  const Tensor &input = memory.boundaries.inputs.front(), &d = memory.boundaries.gradients.front();
  const auto run = [&](int times) {
    for (int i = 0; i < times; ++i) {
      device.kernels().copy(input, d, stream);
      stage.run_first_layer(input, d);
    }
  };
  const auto begin = device.create_event(), end = device.create_event();
  run(warmup);
  stream.record(*begin);
  run(repeats);
  stream.record(*end);
  end->synchronize();
  const double seconds = device.elapsed_seconds(*begin, *end) / repeats;
  return static_cast<double>(control.all_max(static_cast<std::int64_t>(seconds * 1e9))) * 1e-9;
}

}  // namespace

std::string OverlapChoice::to_string() const {
  if (!overlap.enabled) return "off";
  std::string text = fmt::format("{} block{}", overlap.blocks, overlap.blocks == 1 ? "" : "s");
  for (const OverlapTrial& trial : trials)
    text += fmt::format("{}{}: {:.2f} ms", &trial == &trials.front() ? " (a layer with " : ", ", trial.blocks,
                        trial.seconds * 1e3);
  return trials.empty() ? text : text + ")";
}

OverlapChoice choose_overlap(const RankPlan& plan, const RankMemory& memory, Stage& stage, Device& device,
                             Stream& stream, ControlPlane& control) {
  const StageShape& shape = plan.layout.shape;
  OverlapChoice choice{plan.shape.overlap(), {}};
  int& blocks = choice.overlap.blocks;
  // A host moves data only while it does nothing else.
  const bool measure =
      plan.shape.training && blocks == 0 && choice.overlap.enabled && shape.tp > 1 && device.asynchronous();
  if (blocks == 0) blocks = 1;
  if (measure) {
    fill_at_random(plan, memory, stage, device.kernels(), stream);
    for (const int candidate : block_counts) {
      if (shape.shard_rows % candidate != 0 || shape.rows / candidate < fewest_rows) continue;
      stage.set_overlap({.enabled = true, .blocks = candidate});
      choice.trials.push_back({candidate, time_layer(memory, stage, device, stream, control)});
    }
    // More blocks must be worth it: near a tie the same choice keeps the same bits.
    double best = std::numeric_limits<double>::infinity();
    for (const OverlapTrial& trial : choice.trials) {
      if (trial.seconds > (1 - margin) * best) continue;
      best = trial.seconds;
      blocks = trial.blocks;
    }
  }
  stage.set_overlap(choice.overlap);
  return choice;
}

}  // namespace llama3d
