#include "cli/train_options.hpp"

#include "base/error.hpp"

namespace llama3d {

void add_machine_options(CommandLine& line, MachineOptions& machine) {
  line.add("device", machine.device);
  line.add("threads", machine.threads);
  line.add("register-buffers", machine.register_buffers);
  line.add("allow-gpu-sharing", machine.allow_gpu_sharing);
}

void refuse_idle_shape_options(const CommandLine& line, const TrainSettings& s) {
  if (!s.tp_overlap) line.refuse_idle({"tp-overlap-blocks"}, "beside --no-tp-overlap; leave one of them out");
  if (!s.master_weights && s.precision->compute == DType::fp32)
    line.refuse_idle({"master-weights"}, "--precision is fp32; leave it out, or choose bf16");
}

void complete_training_options(CommandLine& line, TrainSettings& s) {
  refuse_idle_shape_options(line, s);
  line.derive("min-learning-rate", s.min_learning_rate, lowest_learning_rate(s));
  if (!s.valid_data.empty() && s.valid_fraction > 0)
    line.refuse_idle({"valid-fraction"}, "beside --valid-data; give one of them");
  if (s.valid_data.empty() && s.valid_fraction == 0)
    line.refuse_idle({"valid-interval", "valid-samples"},
                     "nothing is validated on; give --valid-data or --valid-fraction too");
  if (s.lr_schedule == LearningRateKind::constant && s.min_learning_rate != s.learning_rate)
    line.refuse_idle({"min-learning-rate"},
                     "--lr-schedule is constant; leave it out, or choose another schedule");
  if (s.lr_schedule != LearningRateKind::wsd)
    line.refuse_idle({"wsd-decay-fraction"}, "--lr-schedule is not wsd; leave it out, or choose wsd");
  if (s.checkpoint_interval == 0 && !s.final_checkpoint)
    line.refuse_idle({"keep-checkpoints"}, "none is written; leave it out, or give --checkpoint-interval");
  if (line.on_command_line("warmup-steps") && s.warmup_steps > s.steps)
    throw ConfigurationError(
        fmt::format("--warmup-steps {}: must be at most --steps {}", s.warmup_steps, s.steps));
  if (const StepRange range = StepRange::parse(s.profile_steps); range.first > s.steps)
    line.refuse_idle({"profile-steps"}, fmt::format("the run ends at --steps {}", s.steps));
}

}  // namespace llama3d
