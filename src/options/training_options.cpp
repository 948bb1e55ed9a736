// The options that TrainSettings holds, a row each.
#include <cmath>

#include "base/error.hpp"
#include "options/option_rows.hpp"
#include "options/settings.hpp"

namespace llama3d {
namespace {

using S = TrainSettings;
using G = OptionGroup;
using namespace commands;

// --- values that are words
// -----------------------------------------------------------------------------------

template <class Value>
struct Words;
template <>
struct Words<ScheduleKind> {
  static ScheduleKind read(std::string_view, std::string_view word) { return parse_schedule_kind(word); }
  static std::string_view word(ScheduleKind kind) { return name_of(kind); }
};
template <>
struct Words<Packing> {
  static Packing read(std::string_view, std::string_view word) { return packing_from(word); }
  static std::string_view word(Packing packing) { return word_of(packing); }
};
template <>
struct Words<LearningRateKind> {
  static LearningRateKind read(std::string_view, std::string_view word) {
    return parse_learning_rate_kind(word);
  }
  static std::string_view word(LearningRateKind kind) { return name_of(kind); }
};
template <>
struct Words<Recompute> {
  static Recompute read(std::string_view, std::string_view word) { return parse_recompute(word); }
  static std::string_view word(Recompute recompute) { return name_of(recompute); }
};
template <>
struct Words<const PrecisionRecipe*> {
  static const PrecisionRecipe* read(std::string_view name, std::string_view word) {
    return read_precision(name, word);
  }
  static std::string_view word(const PrecisionRecipe* recipe) { return recipe->name; }
};
template <>
struct Words<DType> {
  static DType read(std::string_view name, std::string_view word) {
    for (const DType dtype : {DType::fp32, DType::bf16})
      if (word == name_of(dtype)) return dtype;
    throw ConfigurationError(fmt::format("`{} {}`: unknown; use fp32 or bf16", field_of(name), word));
  }
  static std::string_view word(DType dtype) { return name_of(dtype); }
};

template <class Value>
concept IsWord = requires(Value value) {
  Words<Value>::word(value);
};

template <auto member>
void bind(OptionVisitor& visitor, std::string_view name, S& settings) {
  auto& value = settings.*member;
  using Value = std::remove_reference_t<decltype(value)>;
  if constexpr (IsWord<Value>)
    visitor.visit(name,
                  WordValue{[&value, name](std::string_view word) { value = Words<Value>::read(name, word); },
                            [&value] { return std::string(Words<Value>::word(value)); }});
  else
    visitor.visit(name, value);
}

void bind_master_weights(OptionVisitor& visitor, std::string_view name, S& settings) {
  bool& master = settings.master_weights;
  visitor.visit(name, WordValue{[&master, name](std::string_view word) {
                                  if (word != "fp32" && word != "none")
                                    throw ConfigurationError(fmt::format("`{} {}`: unknown; use fp32 or none",
                                                                         field_of(name), word));
                                  master = word == "fp32";
                                },
                                [&master] { return std::string(master ? "fp32" : "none"); }});
}

// --- bounds
// --------------------------------------------------------------------------------------------------

template <auto member, std::int64_t least>
bool at_least(const S& s) {
  return s.*member >= least;
}

/// A factor of 1e8 on either side of fp32's own range, for what devices multiply them with.
bool fits_fp32(double value) {
  return value == 0 || (std::abs(value) >= 1e-30 && std::abs(value) <= 1e30);
}
bool is_decay(double value) {
  return value >= 0 && static_cast<float>(value) < 1;
}
constexpr std::string_view of_fp32 = "0, or from 1e-30 to 1e30", below_one = "from 0 to below 1 (in fp32)";

// --- which commands have what
// --------------------------------------------------------------------------------

constexpr unsigned layout = train | eval | plan | bench,  // how weights and a forward pass are laid out
    shape = train | plan | bench,                         // what decides shape and memory of a training step
    samples = train | eval;                               // how documents become samples

}  // namespace

std::vector<Option> training_options() {
  return {
      // --- model
      // ---------------------------------------------------------------------------------------------
      {.name = "model",
       .commands = train,
       .group = G::model,
       .help =
           "preset (llama3-8b, llama3.2-1b, llama3-tiny, ...), config.json or Hugging Face folder; if not "
           "given that of the checkpoint resumed, else of --load, else llama3-tiny",
       .member = bind<&S::model>,
       .is_path = true},
      {.name = "model",
       .commands = eval | plan | bench,
       .group = G::model,
       .help = "preset (llama3-8b, llama3.2-1b, llama3-tiny, ...), config.json or Hugging Face folder",
       .note = {eval, "; that of --load if not given"},
       .member = bind<&S::model>,
       .is_path = true},
      {.name = "load",
       .commands = train,
       .group = G::model,
       .help = "checkpoint or Hugging Face folder whose weights a new run starts from; random weights if not "
               "given",
       .member = bind<&S::load>,
       .is_path = true},
      {.name = "load",
       .commands = eval,
       .group = G::model,
       .help = "checkpoint or Hugging Face folder to evaluate",
       .member = bind<&S::load>,
       .is_path = true},
      {.name = "seed",
       .commands = train,
       .group = G::model,
       .help = "of initial weights and data order",
       .member = bind<&S::seed>},

      // --- data
      // ----------------------------------------------------------------------------------------------
      {.name = "data",
       .commands = train,
       .group = G::data,
       .help = "token file to train on; those of Megatron-LM, llm.c and llm.q too",
       .member = bind<&S::data>,
       .is_path = true},
      {.name = "data",
       .commands = eval,
       .group = G::data,
       .help = "token file to evaluate on",
       .member = bind<&S::data>,
       .is_path = true},
      {.name = "samples",
       .commands = eval,
       .group = G::data,
       .help = "sequences to evaluate on; 0: all",
       .member = bind<&S::valid_samples>,
       .bounds = "0 or more",
       .within = at_least<&S::valid_samples, 0>},
      {.name = "packing",
       .commands = samples,
       .group = G::data,
       .help =
           "how documents become sequences: stream (cut wherever one is full), documents (filled with whole "
           "ones), or auto: documents where the file has a loss mask",
       .member = bind<&S::packing>},
      {.name = "separate-documents",
       .commands = samples,
       .group = G::data,
       .help = "attention and positions restart at every document",
       .member = bind<&S::separate_documents>},

      // --- batch and length of a run
      // -------------------------------------------------------------------------
      {.name = "steps",
       .commands = train,
       .group = G::batch,
       .help = "optimizer steps in all",
       .member = bind<&S::steps>,
       .bounds = "at least 1",
       .within = at_least<&S::steps, 1>,
       .changes_result = true},
      {.name = "seq-length",
       .commands = layout,
       .group = G::batch,
       .help = "tokens a sequence",
       .note = {eval, "; as the checkpoint was trained if not given"},
       .member = bind<&S::seq_length>},
      {.name = "micro-batch-size",
       .commands = layout,
       .group = G::batch,
       .help = "sequences a rank computes on at once",
       .member = bind<&S::micro_batch_size>,
       .bounds = "from 1 to 2147483647",
       .within = [](const S& s) { return s.micro_batch_size >= 1 && s.micro_batch_size <= INT32_MAX; }},
      {.name = "global-batch-size",
       .commands = shape,
       .group = G::batch,
       .help = "sequences a step over all ranks; 0: micro-batch size x DP x stages",
       .member = bind<&S::global_batch_size>,
       .bounds = "at least 1, or 0 for automatic",
       .within = at_least<&S::global_batch_size, 0>,
       .changes_result = true},

      // --- parallelism
      // ---------------------------------------------------------------------------------------
      {.name = "tp-size",
       .commands = layout,
       .group = G::parallelism,
       .help = "tensor-parallel ranks: every layer is split over so many",
       .member = bind<&S::tp_size>,
       .bounds = "at least 1",
       .within = at_least<&S::tp_size, 1>},
      {.name = "pp-size",
       .commands = layout,
       .group = G::parallelism,
       .help = "pipeline stages; data parallelism is what is left of the ranks",
       .member = bind<&S::pp_size>,
       .bounds = "at least 1",
       .within = at_least<&S::pp_size, 1>},
      {.name = "tp-overlap",
       .commands = layout,
       .group = G::parallelism,
       .help = "tensor-parallel communication runs beside the GEMMs around it",
       .member = bind<&S::tp_overlap>},
      {.name = "tp-overlap-blocks",
       .commands = layout,
       .group = G::parallelism,
       .help = "blocks of rows in which it does; 0: the fastest, measured at the start (1 on CPUs)",
       .member = bind<&S::tp_overlap_blocks>,
       .bounds = "at least 1, or 0 for automatic",
       .within = at_least<&S::tp_overlap_blocks, 0>},
      {.name = "pipeline-schedule",
       .commands = layout,
       .group = G::parallelism,
       .help = "gpipe, 1f1b, interleaved or zero-bubble",
       .member = bind<&S::pipeline_schedule>},
      {.name = "pipeline-chunks",
       .commands = layout,
       .group = G::parallelism,
       .help = "model chunks a stage; 0: 2 for interleaved, else 1",
       .member = bind<&S::pipeline_chunks>,
       .bounds = "0 or more",
       .within = at_least<&S::pipeline_chunks, 0>},
      {.name = "pipeline-layers",
       .commands = layout,
       .group = G::parallelism,
       .help = "layers of each part of the pipeline, e.g. 5,5,6; balanced if not given",
       .member = bind<&S::pipeline_layers>},
      {.name = "pipeline-receive-ahead",
       .commands = shape,
       .group = G::parallelism,
       .help =
           "from the second step on, start a receive one computation before it is needed, for networks "
           "slower "
           "than NVLink; 1f1b then holds more activations; not for interleaved, nor with fewer micro-batches "
           "than stages",
       .member = bind<&S::pipeline_receive_ahead>},

      // --- precision and memory
      // ------------------------------------------------------------------------------
      {.name = "precision",
       .commands = layout,
       .group = G::memory,
       .help = "of parameters and activations: fp32 or bf16",
       .member = bind<&S::precision>,
       .changes_result = true},
      {.name = "master-weights",
       .commands = shape,
       .group = G::memory,
       .help = "beside bf16 parameters: fp32, or none with parameters rounded stochastically",
       .member = bind_master_weights,
       .changes_result = true},
      {.name = "gradient-dtype",
       .commands = shape,
       .group = G::memory,
       .help = "of accumulated gradients: fp32 or bf16",
       .member = bind<&S::gradient_dtype>,
       .changes_result = true},
      {.name = "optimizer-dtype",
       .commands = shape,
       .group = G::memory,
       .help = "of AdamW's moments: fp32, or bf16 rounded stochastically",
       .member = bind<&S::optimizer_dtype>,
       .changes_result = true},
      {.name = "offload-optimizer",
       .commands = shape,
       .group = G::memory,
       .help = "keep AdamW's moments and the master weights in host memory, moved beside compute",
       .member = bind<&S::offload_optimizer>},
      {.name = "recompute",
       .commands = shape,
       .group = G::memory,
       .help =
           "in the backward pass: none, cheap (norms, SwiGLU, gathered rows of tensor parallelism) or full "
           "(whole layers)",
       .member = bind<&S::recompute>},

      // --- optimizer
      // -----------------------------------------------------------------------------------------
      {.name = "learning-rate",
       .commands = train,
       .group = G::optimizer,
       .help = "largest learning rate",
       .member = bind<&S::learning_rate>,
       .bounds = of_fp32,
       .within = [](const S& s) { return s.learning_rate >= 0 && fits_fp32(s.learning_rate); },
       .changes_result = true},
      {.name = "min-learning-rate",
       .commands = train,
       .group = G::optimizer,
       .help = "learning rate at the last step; a tenth of a smaller --learning-rate than the default",
       .member = bind<&S::min_learning_rate>,
       .bounds = "from 0 to `learning_rate` (give both), 0 or at least 1e-30",
       .within =
           [](const S& s) {
             const double lowest = lowest_learning_rate(s);
             return lowest >= 0 && lowest <= s.learning_rate && fits_fp32(lowest);
           },
       .changes_result = true},
      {.name = "warmup-steps",
       .commands = train,
       .group = G::optimizer,
       .help = "steps in which the rate rises from 0",
       .member = bind<&S::warmup_steps>,
       .bounds = "0 or more",
       .within = at_least<&S::warmup_steps, 0>,
       .changes_result = true},
      {.name = "lr-schedule",
       .commands = train,
       .group = G::optimizer,
       .help = "cosine, linear, constant or wsd",
       .member = bind<&S::lr_schedule>,
       .changes_result = true},
      {.name = "wsd-decay-fraction",
       .commands = train,
       .group = G::optimizer,
       .help = "share of the steps in which wsd decays",
       .member = bind<&S::wsd_decay_fraction>,
       .bounds = "from 0 to 1",
       .within = [](const S& s) { return s.wsd_decay_fraction >= 0 && s.wsd_decay_fraction <= 1; },
       .changes_result = true},
      {.name = "weight-decay",
       .commands = train,
       .group = G::optimizer,
       .help = "of matrices and embeddings, not of norms and biases",
       .member = bind<&S::weight_decay>,
       .bounds = of_fp32,
       .within = [](const S& s) { return s.weight_decay >= 0 && fits_fp32(s.weight_decay); },
       .changes_result = true},
      {.name = "adam-beta1",
       .commands = train,
       .group = G::optimizer,
       .help = "decay of the first moment",
       .member = bind<&S::beta1>,
       .bounds = below_one,
       .within = [](const S& s) { return is_decay(s.beta1); },
       .changes_result = true},
      {.name = "adam-beta2",
       .commands = train,
       .group = G::optimizer,
       .help = "decay of the second moment",
       .member = bind<&S::beta2>,
       .bounds = below_one,
       .within = [](const S& s) { return is_decay(s.beta2); },
       .changes_result = true},
      {.name = "adam-epsilon",
       .commands = train,
       .group = G::optimizer,
       .help = "added to the root of the second moment",
       .member = bind<&S::epsilon>,
       .bounds = "above 0, from 1e-30 to 1e30",
       .within = [](const S& s) { return s.epsilon > 0 && fits_fp32(s.epsilon); },
       .changes_result = true},
      {.name = "grad-clip",
       .commands = train,
       .group = G::optimizer,
       .help = "largest global gradient norm; 0: no clipping",
       .member = bind<&S::grad_clip>,
       .bounds = of_fp32,
       .within = [](const S& s) { return s.grad_clip >= 0 && fits_fp32(s.grad_clip); },
       .changes_result = true},
      {.name = "max-skipped-steps",
       .commands = train,
       .group = G::optimizer,
       .help = "non-finite steps in a row before training stops",
       .member = bind<&S::max_skipped_steps>,
       .bounds = "at least 1",
       .within = at_least<&S::max_skipped_steps, 1>},

      // --- validation
      // ----------------------------------------------------------------------------------------
      {.name = "valid-data",
       .commands = train,
       .group = G::validation,
       .help = "token file to validate on",
       .member = bind<&S::valid_data>,
       .is_path = true},
      {.name = "valid-fraction",
       .commands = train,
       .group = G::validation,
       .help = "share of --data, at its end, to validate on instead",
       .member = bind<&S::valid_fraction>,
       .bounds = "from 0 to below 1",
       .within = [](const S& s) { return s.valid_fraction >= 0 && s.valid_fraction < 1; }},
      {.name = "valid-interval",
       .commands = train,
       .group = G::validation,
       .help = "steps between validations; 0: only at the end",
       .member = bind<&S::valid_interval>,
       .bounds = "0 or more",
       .within = at_least<&S::valid_interval, 0>},
      {.name = "valid-samples",
       .commands = train,
       .group = G::validation,
       .help = "sequences of a validation; 0: all",
       .member = bind<&S::valid_samples>,
       .bounds = "0 or more",
       .within = at_least<&S::valid_samples, 0>},

      // --- checkpoints
      // ---------------------------------------------------------------------------------------
      {.name = "output-dir",
       .commands = train,
       .group = G::checkpoints,
       .help = "folder for metrics.h5 and checkpoints/",
       .member = bind<&S::output_dir>,
       .is_path = true},
      {.name = "resume",
       .commands = train,
       .group = G::checkpoints,
       .help = "go on with a run, optimizer and position included: auto (newest complete checkpoint of "
               "--output-dir, if there is any) or a checkpoint's folder",
       .member = bind<&S::resume>,
       .is_path = true},
      {.name = "checkpoint-interval",
       .commands = train,
       .group = G::checkpoints,
       .help = "steps between checkpoints; 0: only at the end",
       .member = bind<&S::checkpoint_interval>,
       .bounds = "0 or more",
       .within = at_least<&S::checkpoint_interval, 0>},
      {.name = "final-checkpoint",
       .commands = train,
       .group = G::checkpoints,
       .help = "write one at the end, whatever the interval",
       .member = bind<&S::final_checkpoint>},
      {.name = "keep-checkpoints",
       .commands = train,
       .group = G::checkpoints,
       .help = "newest checkpoints to keep; 0: all",
       .member = bind<&S::keep_checkpoints>,
       .bounds = "0 or more",
       .within = at_least<&S::keep_checkpoints, 0>},

      // --- machine
      // -------------------------------------------------------------------------------------------
      {.name = "comm-timeout",
       .commands = train | eval | bench,
       .group = G::machine,
       .help = comm_timeout_help,
       .member = bind<&S::comm_timeout>,
       .bounds = "0 (no limit) or more seconds",
       .within = [](const S& s) { return s.comm_timeout >= 0; }},

      // --- looking before and at a run
      // -----------------------------------------------------------------------
      {.name = "log-interval",
       .commands = train,
       .group = G::look,
       .help = "steps between plain progress lines and per-rank metrics",
       .member = bind<&S::log_interval>,
       .bounds = "0 or more",
       .within = at_least<&S::log_interval, 0>},
      {.name = "profile-steps",
       .commands = train,
       .group = G::look,
       .help =
           "FIRST:LAST: steps that a profiler started with \"capture on request\" sees, and whose timeline "
           "goes into metrics.h5",
       .member = bind<&S::profile_steps>},
  };
}

}  // namespace llama3d
