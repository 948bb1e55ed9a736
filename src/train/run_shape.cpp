#include "train/run_shape.hpp"

namespace llama3d {

std::filesystem::path checkpoint_directory(const TrainSettings& s) {
  return std::filesystem::path(s.output_dir) / "checkpoints";
}

RunShape run_shape(const TrainSettings& s, const ModelConfig& model, int world_size) {
  RunShape shape{s, model, {}};
  shape.grid = ProcessGrid::derive(world_size, {.tp = s.tp_size, .pp = s.pp_size}, 0).shape();
  // What was left to be derived stays as it is when an advice changes something else.
  shape.pipeline_chunks = shape.chunks();
  shape.global_batch_size = shape.global_batch();
  return shape;
}

OptimizerOptions optimizer_options(const TrainSettings& s) {
  return {.beta1 = s.beta1,
          .beta2 = s.beta2,
          .epsilon = s.epsilon,
          .weight_decay = s.weight_decay,
          .gradient_clip = s.grad_clip,
          .seed = s.seed};
}

LearningRateSchedule learning_rate_schedule(const TrainSettings& s) {
  return {.kind = s.lr_schedule,
          .peak = s.learning_rate,
          .minimum = lowest_learning_rate(s),
          .warmup_steps = s.warmup_steps,
          .steps = s.steps,
          .decay_fraction = s.wsd_decay_fraction};
}

}  // namespace llama3d
