#include "train/run_shape.hpp"

namespace llama3d {

std::filesystem::path checkpoint_directory(const TrainSettings& s) {
  return std::filesystem::path(s.output_dir) / "checkpoints";
}

RunShape run_shape(const TrainSettings& s, const ModelConfig& model, int world_size) {
  RunShape shape;
  shape.model = model;
  shape.grid = ProcessGrid::derive(world_size, {.tp = s.tp_size, .pp = s.pp_size}, 0).shape();
  shape.schedule = s.pipeline_schedule;
  shape.receives = s.pipeline_receive_ahead ? ReceiveStart::ahead : ReceiveStart::when_needed;
  const bool interleaved = s.pipeline_schedule == ScheduleKind::interleaved;
  shape.chunks = s.pipeline_chunks > 0 ? s.pipeline_chunks : interleaved ? 2 : 1;
  shape.pipeline_layers = s.pipeline_layers;
  shape.micro_batch = s.micro_batch_size;
  shape.global_batch = s.global_batch_size > 0 ? s.global_batch_size
                                               : s.micro_batch_size * shape.grid.size(Axis::data) *
                                                     shape.grid.size(Axis::pipeline);
  shape.sequence = s.seq_length;
  shape.precision = s.precision;
  shape.states = {.gradient = s.gradient_dtype,
                  .moments = s.optimizer_dtype,
                  .master = s.master_weights,
                  .offload = s.offload_optimizer};
  shape.recompute = s.recompute;
  shape.overlap = {.enabled = s.tp_overlap, .blocks = s.tp_overlap_blocks};
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
