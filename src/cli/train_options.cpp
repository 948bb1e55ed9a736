#include "cli/train_options.hpp"

#include <fmt/ranges.h>

#include "base/error.hpp"

namespace llama3d {
namespace {

DType parse_dtype(std::string_view option, std::string_view word) {
  for (const DType dtype : {DType::fp32, DType::bf16})
    if (word == name_of(dtype)) return dtype;
  throw ConfigurationError(fmt::format("--{} {}: unknown; use fp32 or bf16", option, word));
}
const PrecisionRecipe* parse_precision(std::string_view word) {
  if (const PrecisionRecipe* recipe = find_precision(word)) return recipe;
  std::vector<std::string_view> words;
  for (const PrecisionRecipe& recipe : precision_recipes()) words.push_back(recipe.name);
  throw ConfigurationError(fmt::format("--precision {}: unknown; use {}", word, fmt::join(words, " or ")));
}
std::string_view name_of_precision(const PrecisionRecipe* recipe) {
  return recipe->name;
}
DType parse_gradient_dtype(std::string_view word) {
  return parse_dtype("gradient-dtype", word);
}
DType parse_optimizer_dtype(std::string_view word) {
  return parse_dtype("optimizer-dtype", word);
}

bool parse_master_weights(std::string_view word) {
  if (word != "fp32" && word != "none")
    throw ConfigurationError(fmt::format("--master-weights {}: unknown; use fp32 or none", word));
  return word == "fp32";
}
std::string_view name_of_master_weights(bool master) {
  return master ? "fp32" : "none";
}

}  // namespace

void add_machine_options(CommandLine& line, MachineOptions& machine) {
  line.add("device", machine.device, "cpu, cuda, or auto: cuda where every rank has a GPU of its own");
  line.add("threads", machine.threads,
           "threads a rank on CPUs; 0: the cores, divided by the ranks that may use the same");
  line.add_flag(
      "register-buffers", machine.register_buffers,
      "in training and evaluation, register what tensor parallelism moves with NCCL, which then reads "
      "and writes it on other GPUs of its host without copies between; not on GPUs that ranks share");
  line.add_flag("allow-gpu-sharing", machine.allow_gpu_sharing,
                "let ranks share a GPU, taking turns: for tests; NCCL 2.30 or later");
}

void add_job_options(CommandLine& line, double& comm_timeout) {
  line.add(
      "comm-timeout", comm_timeout,
      "seconds a rank may wait for others (a checkpoint being written, too) before the job is reported as "
      "hung and ended; 0: no limit");
}

void add_precision_option(CommandLine& line, const PrecisionRecipe*& precision) {
  line.add_word("precision", precision, parse_precision, name_of_precision,
                "of parameters and activations: fp32 or bf16");
}

void add_layout_options(CommandLine& line, TrainSettings& s) {
  const std::string recorded = s.seq_length == 0 ? "; as the checkpoint was trained if not given" : "";
  const bool trains = s.seq_length != 0;
  std::string loaded = s.model.empty() ? "; that of --load if not given" : "";
  if (s.model.empty() && trains)
    loaded = "; if not given that of the checkpoint resumed, else of --load, else llama3-tiny";
  line.add("model", s.model,
           "preset (llama3-8b, llama3.2-1b, llama3-tiny, ...), config.json or Hugging Face folder" + loaded);
  line.add("tp-size", s.tp_size, "tensor-parallel ranks: every layer is split over so many");
  line.add("pp-size", s.pp_size, "pipeline stages; data parallelism is what is left of the ranks");
  line.add_flag("tp-overlap", s.tp_overlap, "tensor-parallel communication runs beside the GEMMs around it");
  line.add("tp-overlap-blocks", s.tp_overlap_blocks,
           "blocks of rows in which it does; 0: the fastest, measured at the start (1 on CPUs)");
  line.add_word("pipeline-schedule", s.pipeline_schedule, parse_schedule_kind, name_of,
                "gpipe, 1f1b, interleaved or zero-bubble");
  line.add("pipeline-chunks", s.pipeline_chunks, "model chunks a stage; 0: 2 for interleaved, else 1");
  line.add("pipeline-layers", s.pipeline_layers,
           "layers of each part of the pipeline, e.g. 5,5,6; balanced if not given");
  line.add("micro-batch-size", s.micro_batch_size, "sequences a rank computes on at once");
  line.add("seq-length", s.seq_length, "tokens a sequence" + recorded);
  add_precision_option(line, s.precision);
}

void add_shape_options(CommandLine& line, TrainSettings& s) {
  add_layout_options(line, s);
  line.add("global-batch-size", s.global_batch_size,
           "sequences a step over all ranks; 0: micro-batch size x DP x stages");
  line.add_flag(
      "pipeline-receive-ahead", s.pipeline_receive_ahead,
      "from the second step on, start a receive one computation before it is needed, for networks slower "
      "than NVLink; 1f1b then holds more activations; not for interleaved, nor with fewer micro-batches than "
      "stages");
  line.add_word("master-weights", s.master_weights, parse_master_weights, name_of_master_weights,
                "beside bf16 parameters: fp32, or none with parameters rounded stochastically");
  line.add_word("gradient-dtype", s.gradient_dtype, parse_gradient_dtype, name_of,
                "of accumulated gradients: fp32 or bf16");
  line.add_word("optimizer-dtype", s.optimizer_dtype, parse_optimizer_dtype, name_of,
                "of AdamW's moments: fp32, or bf16 rounded stochastically");
  line.add_flag("offload-optimizer", s.offload_optimizer,
                "keep AdamW's moments and the master weights in host memory, moved beside compute");
  line.add_word("recompute", s.recompute, parse_recompute, name_of,
                "in the backward pass: none, cheap (norms, SwiGLU, gathered rows of tensor parallelism) or "
                "full (whole layers)");
}

void add_sample_options(CommandLine& line, TrainSettings& s) {
  line.add_word(
      "packing", s.packing, packing_from, word_of,
      "how documents become sequences: stream (cut wherever one is full), documents (filled with whole "
      "ones), or auto: documents where the file has a loss mask");
  line.add_flag("separate-documents", s.separate_documents,
                "attention and positions restart at every document");
}

void add_training_options(CommandLine& line, TrainSettings& s) {
  line.add("data", s.data, "token file to train on; those of Megatron-LM, llm.c and llm.q too");
  line.add("valid-data", s.valid_data, "token file to validate on");
  line.add("valid-fraction", s.valid_fraction, "share of --data, at its end, to validate on instead");
  line.add("valid-interval", s.valid_interval, "steps between validations; 0: only at the end");
  line.add("valid-samples", s.valid_samples, "sequences of a validation; 0: all");
  add_sample_options(line, s);
  line.add(
      "load", s.load,
      "checkpoint or Hugging Face folder whose weights a new run starts from; random weights if not given");
  line.add("steps", s.steps, "optimizer steps in all");
  line.add("learning-rate", s.learning_rate, "largest learning rate");
  line.add("min-learning-rate", s.min_learning_rate,
           "learning rate at the last step; a tenth of a smaller --learning-rate than the default")
      ->default_str(fmt::format("{}", lowest_learning_rate(s)));
  line.add("warmup-steps", s.warmup_steps, "steps in which the rate rises from 0");
  line.add_word("lr-schedule", s.lr_schedule, parse_learning_rate_kind, name_of,
                "cosine, linear, constant or wsd");
  line.add("wsd-decay-fraction", s.wsd_decay_fraction, "share of the steps in which wsd decays");
  line.add("weight-decay", s.weight_decay, "of matrices and embeddings, not of norms");
  line.add("adam-beta1", s.beta1, "decay of the first moment");
  line.add("adam-beta2", s.beta2, "decay of the second moment");
  line.add("adam-epsilon", s.epsilon, "added to the root of the second moment");
  line.add("grad-clip", s.grad_clip, "largest global gradient norm; 0: no clipping");
  line.add("seed", s.seed, "of initial weights and data order");
  line.add("max-skipped-steps", s.max_skipped_steps, "non-finite steps in a row before training stops");
  line.add("output-dir", s.output_dir, "folder for metrics.h5 and checkpoints/");
  line.add("checkpoint-interval", s.checkpoint_interval, "steps between checkpoints; 0: only at the end");
  line.add_flag("final-checkpoint", s.final_checkpoint, "write one at the end, whatever the interval");
  line.add("keep-checkpoints", s.keep_checkpoints, "newest checkpoints to keep; 0: all");
  line.add(
      "resume", s.resume,
      "go on with a run, optimizer and position included: auto (newest complete checkpoint of --output-dir, "
      "if there is any) or a checkpoint's folder");
  line.add(
      "profile-steps", s.profile_steps,
      "FIRST:LAST: steps that a profiler started with \"capture on request\" sees, and whose timeline goes "
      "into metrics.h5");
  line.add("log-interval", s.log_interval, "steps between plain progress lines and per-rank metrics");
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
