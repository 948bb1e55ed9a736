#pragma once
// Carries out how a run starts: fills the engine's state.

#include "data/dataset.hpp"
#include "train/engine.hpp"
#include "train/run_log.hpp"
#include "train/start_decision.hpp"

namespace llama3d {

/// A run whose state is filled.
struct StartedRun {
  TrainPosition position;
  WeightOrigin origin;           ///< of its weights
  std::filesystem::path folder;  ///< of the checkpoint that it goes on from; empty for a new run
};

/// Initializes or loads weights and moments, and gathers the parameters. `run` is compared with what is
/// resumed, `tokens` with what is loaded; the log is told of differences. Collective; CollectiveErrors.
StartedRun start_run(StartDecision start, const TrainSettings& settings, const RunRecord& run,
                     const TokenFileInfo& tokens, Engine& engine, ControlPlane& control, RunLog& log);

}  // namespace llama3d
