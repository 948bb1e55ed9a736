#include "train/overlap_choice.hpp"

#include <array>

#include "compute/kernels.hpp"

namespace llama3d {
namespace {

constexpr std::array block_counts = {1, 2, 4, 8};
constexpr std::int64_t fewest_rows = 256;  // of a block: products of fewer don't fill a GPU
constexpr int warmup = 2, repeats = 6;

/// Nanoseconds of the slowest rank.
std::int64_t time_products(Stage& stage, Device& device, Stream& stream, ControlPlane& control) {
  const auto begin = device.create_event(), end = device.create_event();
  for (int i = 0; i < warmup; ++i) stage.run_products_in_blocks();
  stream.record(*begin);
  for (int i = 0; i < repeats; ++i) stage.run_products_in_blocks();
  stream.record(*end);
  end->synchronize();
  return control.all_max(static_cast<std::int64_t>(device.elapsed_seconds(*begin, *end) * 1e9));
}

}  // namespace

TensorParallelOverlap choose_overlap(const RankPlan& plan, const Tensor& parameters, Stage& stage,
                                     Device& device, Stream& stream, ControlPlane& control) {
  const StageShape& shape = plan.layout.shape;
  TensorParallelOverlap best = plan.shape.overlap;
  // A host moves data only while it does nothing else.
  const bool measure = best.blocks == 0 && best.enabled && shape.tp > 1 && device.asynchronous();
  if (best.blocks == 0) best.blocks = 1;
  stage.set_overlap(best);
  if (!measure) return best;
  device.kernels().fill_normal(parameters.reshape({1, parameters.elements()}), 1, 0, 0, parameters.elements(),
                               0.02f, stream);
  stage.draw_products_in_blocks();
  std::int64_t least = 0;
  for (const int blocks : block_counts) {
    if (shape.shard_rows % blocks != 0 || shape.rows / blocks < fewest_rows) continue;
    stage.set_overlap({.enabled = true, .blocks = blocks});
    const std::int64_t time = time_products(stage, device, stream, control);
    if (least > 0 && time >= least) continue;
    least = time;
    best.blocks = blocks;
  }
  stage.set_overlap(best);
  return best;
}

}  // namespace llama3d
