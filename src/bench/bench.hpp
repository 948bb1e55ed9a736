#pragma once
// The measurements of `llama3d bench`.

#include <functional>
#include <vector>

#include "bench/laboratory.hpp"
#include "io/metrics/bench_file.hpp"
#include "model/stage_shape.hpp"
#include "parallel/runtime.hpp"
#include "plan/run_plan.hpp"
#include "train/overlap_choice.hpp"

namespace llama3d {

/// Told of each row as it is measured.
using BenchSink = std::function<void(const BenchRow&)>;

/// Every bandwidth-bound operation on one micro-batch of the run's first rank, in bytes that must move,
/// against the rate of a large copy.
void bench_kernels(Laboratory& laboratory, const RunShape& run, const BenchSink& sink);

/// Every GEMM of the model, forward, input gradient and accumulated weight gradient, in FLOPs
/// against the rate of a large GEMM. Returns the seconds of all GEMMs of one micro-batch.
double bench_gemms(Laboratory& laboratory, const RunShape& run, const BenchSink& sink);

/// Attention forward and backward in causal FLOPs against the same. Returns the seconds that all layers spend
/// in it for one micro-batch.
double bench_attention(Laboratory& laboratory, const RunShape& run, const BenchSink& sink);

struct StepBench {
  std::vector<double> step_seconds;
  std::size_t planned_bytes = 0, used_bytes = 0;
  LabelRecords communication;  ///< of this rank in all timed steps
  OverlapChoice overlap;
};

/// Whole optimizer steps on random tokens. Collective. `warmup` steps come first and are not counted.
StepBench bench_steps(const RunShape& run, Runtime& runtime, int warmup, int steps);

/// Sizes of one micro-batch on a rank of the run's grid.
StageShape bench_shape(const RunShape& run);

}  // namespace llama3d
