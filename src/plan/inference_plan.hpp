#pragma once
// What follows from the settings of a generation alone: parameter table and memory of a rank, before anything
// is allocated.

#include "model/inference.hpp"
#include "plan/run_plan.hpp"

namespace llama3d {

/// What decides the shape of a generation.
struct InferenceShape {
  ModelConfig model;
  int tp = 1;
  DType compute = DType::fp32;
  std::int64_t sequences = 1;  ///< decoded at once
  std::int64_t capacity = 1;   ///< tokens of a sequence, prompt and answer
  std::int64_t rows = 1;       ///< most tokens of a step
};

struct InferencePlan {
  InferenceShape shape;
  ProcessGrid grid;  ///< of the tp group alone: replicas know nothing of each other
  ParameterTable table;
  InferenceLayout layout;
  MemoryPlan memory;
};

/// Memory of a rank, in one arena a category. Measured and allocated by the same layout.
struct InferenceArenas {
  Arena parameters, cache, activations, workspace;
  Tensor weights;  ///< (table's arena elements) compute
  InferenceMemory model;
  Tensor kernel_workspace;
};

/// Throws ConfigurationError where the shape can't be.
InferencePlan make_inference_plan(const InferenceShape& shape, int tp_rank, const Kernels& kernels);

/// Takes what the plan says from the device and gives the kernels their workspace.
InferenceArenas allocate(const InferencePlan& plan, Device& device);

/// Throws ConfigurationError, with the plan and what to change, when it needs more than there is.
void check_fits(const InferencePlan& plan, const DeviceCapacity& capacity);

}  // namespace llama3d
