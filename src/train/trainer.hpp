#pragma once
// A training run from settings to the last checkpoint.

#include <filesystem>
#include <memory>
#include <optional>

#include "train/checkpoints.hpp"
#include "train/engine.hpp"
#include "train/metrics_recorder.hpp"
#include "train/progress.hpp"
#include "train/settings.hpp"

namespace llama3d {

struct TrainResult {
  ExitStatus status = ExitStatus::done;  ///< done, or requeue when a signal ended the run after saving
  std::int64_t steps = 0;                ///< done in all, earlier runs included
  double loss = 0;                       ///< of the last step
  std::optional<double> valid_loss;      ///< of the last validation
};

/// The model of settings.model; where that is empty, of the weights in settings.load, of the checkpoint in
/// settings.resume, or else llama3-tiny.
ModelConfig model_of(const TrainSettings& settings);
/// The shape of the run on `world_size` ranks. Throws ConfigurationError.
RunShape run_shape(const TrainSettings& settings, int world_size);
/// With this model instead of settings.model.
RunShape run_shape(const TrainSettings& settings, const ModelConfig& model, int world_size);

/// Checks everything that can be checked without allocating or writing: settings, shapes, memory, data files.
/// Throws what training would.
struct RunCheck {
  MemoryPlan memory;  ///< of the rank that needs most
  std::string data;   ///< what the token files hold, for people
};
RunCheck check_run(const TrainSettings& settings, int world_size, const Device& device,
                   const Kernels& kernels);

/// Trains. Collective over the job; errors that every rank sees are CollectiveErrors (mpi/failure.hpp).
TrainResult train(const TrainSettings& settings, Runtime& runtime);

}  // namespace llama3d
