#pragma once
// One rank's part of a run, allocated and wired: what a step and an evaluation need, and nothing about files.

#include <memory>
#include <span>

#include "data/dataset.hpp"
#include "plan/run_plan.hpp"
#include "train/runtime.hpp"

namespace llama3d {

/// Seconds of the last step on this rank, by what it did.
struct PhaseSeconds {
  double compute = 0, tp = 0, pp = 0, dp = 0, optimizer = 0;
};

/// Mean loss over `targets` rows.
struct Evaluation {
  double loss = 0;
  double targets = 0;
};

class Engine {
 public:
  /// Collective: makes the grid's communicators and takes all memory. `runtime` must outlive the engine.
  Engine(RankPlan plan, const OptimizerOptions& optimizer, Runtime& runtime);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// One optimizer step over this rank's micro-batches, plan().pipeline.micro_batches of them.
  StepResult train_step(std::span<const BatchRows> micro_batches, std::int64_t step, double learning_rate);
  /// Loss over the micro-batches of all data-parallel ranks, any number of them, the same on every rank.
  Evaluation evaluate(std::span<const BatchRows> micro_batches);

  const RankPlan& plan() const { return plan_; }
  DistributedOptimizer& optimizer() { return *optimizer_; }
  Stage& stage() { return *stage_; }
  PipelineExecutor& executor() { return *executor_; }
  const RankMemory& memory() const { return memory_; }
  GridCommunicators& communicators() { return *communicators_; }
  Device& device() { return runtime_->device; }
  Stream& stream() { return *stream_; }
  const PhaseSeconds& seconds() const { return seconds_; }

 private:
  RankPlan plan_;
  Runtime* runtime_;
  std::unique_ptr<GridCommunicators> communicators_;
  std::unique_ptr<Stream> stream_;
  RankMemory memory_;
  std::unique_ptr<Stage> stage_;
  std::unique_ptr<PipelineExecutor> executor_;
  std::unique_ptr<DistributedOptimizer> optimizer_;
  DeviceMemory host_totals_;  ///< (2) fp64
  PhaseSeconds seconds_;
};

}  // namespace llama3d
