#include "train/overlap_choice.hpp"

#include <fmt/format.h>

#include <array>
#include <limits>

#include "compute/kernels.hpp"

namespace llama3d {
namespace {

constexpr std::array block_counts = {1, 2, 4, 8};
constexpr std::int64_t fewest_rows = 256;  // of a block: products of fewer don't fill a GPU
constexpr int warmup = 2, repeats = 6;
constexpr double margin = 0.03;

double time_products(Stage& stage, Device& device, Stream& stream, ControlPlane& control) {
  const auto begin = device.create_event(), end = device.create_event();
  for (int i = 0; i < warmup; ++i) stage.run_products_in_blocks();
  stream.record(*begin);
  for (int i = 0; i < repeats; ++i) stage.run_products_in_blocks();
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
    text += fmt::format("{}{}: {:.2f} ms", &trial == &trials.front() ? " (a layer's products with " : ", ",
                        trial.blocks, trial.seconds * 1e3);
  return trials.empty() ? text : text + ")";
}

OverlapChoice choose_overlap(const RankPlan& plan, const Tensor& parameters, Stage& stage, Device& device,
                             Stream& stream, ControlPlane& control) {
  const StageShape& shape = plan.layout.shape;
  OverlapChoice choice{plan.shape.overlap, {}};
  int& blocks = choice.overlap.blocks;
  // A host moves data only while it does nothing else.
  const bool measure =
      plan.shape.training && blocks == 0 && choice.overlap.enabled && shape.tp > 1 && device.asynchronous();
  if (blocks == 0) blocks = 1;
  if (measure) {
    device.kernels().fill_normal(parameters.reshape({1, parameters.elements()}), 1, 0, 0,
                                 parameters.elements(), 0.02f, stream);
    stage.draw_products_in_blocks();
    for (const int candidate : block_counts) {
      if (shape.shard_rows % candidate != 0 || shape.rows / candidate < fewest_rows) continue;
      stage.set_overlap({.enabled = true, .blocks = candidate});
      choice.trials.push_back({candidate, time_products(stage, device, stream, control)});
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
