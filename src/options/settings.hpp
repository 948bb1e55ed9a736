#pragma once
// Everything a user decides about a training run. The command line fills it; a program may fill it itself.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/samples.hpp"
#include "optim/learning_rate.hpp"
#include "options/option.hpp"
#include "pipeline/schedule.hpp"
#include "plan/run_layout.hpp"

namespace llama3d {

struct TrainSettings : RunLayout {
  // model and data
  std::string model;          ///< preset, config.json or Hugging Face folder; empty: see model_of()
  std::string data;           ///< token file
  std::string valid_data;     ///< token file; empty: the end of `data`, see valid_fraction
  double valid_fraction = 0;  ///< share of `data` held out when there is no valid_data
  Packing packing = Packing::automatic;
  std::int64_t valid_interval = 100;  ///< steps between validations; 0: only at the end
  std::int64_t valid_samples = 64;    ///< sequences of a validation; 0: all
  bool separate_documents = true;     ///< attention and positions restart at every document
  std::string load;  ///< checkpoint or Hugging Face folder whose weights a new run starts from

  // grid
  int tp_size = 1;
  int pp_size = 1;

  // optimization
  std::int64_t steps = 1000;
  double learning_rate = 3e-4;
  double min_learning_rate = std::numeric_limits<double>::quiet_NaN();  ///< NaN: see lowest_learning_rate()
  std::int64_t warmup_steps = 0;
  LearningRateKind lr_schedule = LearningRateKind::cosine;
  double wsd_decay_fraction = 0.2;
  double weight_decay = 0.1;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double grad_clip = 1.0;  ///< global norm; 0 does not clip
  std::uint64_t seed = 1;
  std::int64_t max_skipped_steps =
      10;  ///< consecutive steps with non-finite loss or gradient before giving up

  // machine
  double comm_timeout = 600;  ///< seconds a communication may wait before the job is ended; 0: no limit

  // output
  std::string output_dir = "runs/default";
  std::int64_t checkpoint_interval = 0;  ///< steps; 0: only at the end
  bool final_checkpoint = true;          ///< one at the end, whatever the interval
  int keep_checkpoints = 3;              ///< newest to keep; 0: all
  std::string resume;              ///< "auto", the checkpoint of a run to go on with, or empty: a new run
  std::int64_t log_interval = 10;  ///< steps between plain progress lines and rows a rank

  std::string profile_steps;  ///< "A:B": steps for the profiler and the timeline; empty: none

  // for the record
  std::string command_line;   ///< as started
  std::string configuration;  ///< all of the above as resolved, JSON text
};

/// The steps of a run that are profiled, first to last; none when first is 0.
struct StepRange {
  std::int64_t first = 0, last = -1;
  bool holds(std::int64_t step) const { return first <= step && step <= last; }
  /// Of "A:B" or "A"; throws ConfigurationError.
  static StepRange parse(const std::string& text);
};

/// The rate at the last step: settings.min_learning_rate; where that is NaN 3e-5, or a tenth of a learning
/// rate below the default of 3e-4.
double lowest_learning_rate(const TrainSettings& settings);

/// The recipe of a word, or ConfigurationError naming the option `name`.
const PrecisionRecipe* read_precision(std::string_view name, std::string_view word);

/// The bounds of every option that the command has (commands::train and the like), and those that no single
/// option has. Throws ConfigurationError naming the option.
void check_settings(const TrainSettings& settings, unsigned command = commands::train);
/// Of one option that commands have which do not train. Throws likewise.
void check_comm_timeout(double seconds);

}  // namespace llama3d
