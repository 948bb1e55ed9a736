#pragma once
// A training run from settings to the last checkpoint.

#include <cstdint>
#include <optional>

#include "base/error.hpp"
#include "options/settings.hpp"
#include "parallel/runtime.hpp"

namespace llama3d {

struct TrainResult {
  ExitStatus status = ExitStatus::done;  ///< done, or requeue when a signal ended the run after saving
  std::int64_t steps = 0;                ///< done in all, earlier runs included
  double loss = 0;                       ///< of the last step
  std::optional<double> valid_loss;      ///< of the last validation
};

/// Trains. Collective over the job; errors that every rank sees are CollectiveErrors (mpi/failure.hpp).
TrainResult train(const TrainSettings& settings, Runtime& runtime);

}  // namespace llama3d
