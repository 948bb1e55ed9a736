#pragma once
// Everything that follows from the settings alone: grid, layers, parameters, schedule and memory of a rank,
// before anything is allocated and for any rank of any grid.

#include <optional>
#include <string>
#include <vector>

#include "model/parameter_table.hpp"
#include "model/stage.hpp"
#include "optim/distributed_optimizer.hpp"
#include "pipeline/executor.hpp"
#include "plan/run_layout.hpp"

namespace llama3d {

/// What decides the shape of a run: how it is laid out, of which model, on which grid.
struct RunShape : RunLayout {
  ModelConfig model;
  GridShape grid;
  bool training = true;  ///< false: forward passes only, without gradients and optimizer

  /// Sequences a step over all ranks.
  std::int64_t global_batch() const {
    return global_batch_size > 0 ? global_batch_size
                                 : micro_batch_size * grid.size(Axis::data) * grid.size(Axis::pipeline);
  }
  /// Micro-batches a rank takes in a step. Throws ConfigurationError when the global batch is not a multiple
  /// of micro-batch size x DP, and when the batch has more micro-batches or tokens than can be counted.
  int micro_batches() const;
  /// Tokens of a sequence on each rank of the context axis. Throws ConfigurationError when its size does not
  /// divide the sequence.
  std::int64_t local_sequence() const;
  PipelineShape pipeline() const { return {grid.size(Axis::pipeline), chunks(), micro_batches()}; }
};

/// Bytes of device memory by what they hold, and of host memory beside it.
struct MemoryPlan {
  struct Entry {
    std::string category;
    std::size_t bytes = 0;
  };
  std::vector<Entry> entries;
  std::size_t host = 0;  ///< of the offloaded optimizer; not part of the entries
  /// Of the device.
  std::size_t total() const;
  /// A table, a line a category.
  std::string to_string() const;
  /// The same on one line: "parameters 1.20 GiB, gradients ...".
  std::string summary() const;
};

/// Memory of a rank, in one arena a category. Measured and allocated by the same layout.
struct RankMemory {
  Arena parameters, gradients, optimizer, activations, workspace;
  Arena host;  ///< in host memory
  ModelStateMemory state;
  StageMemory stage;
  PipelineBuffers boundaries;
  Tensor kernel_workspace;

  RankMemory() = default;
  RankMemory(RankMemory&&) = default;
};

struct RankPlan {
  RunShape shape;
  ProcessGrid grid;
  PipelineShape pipeline;
  std::vector<LayerRange> partition;  ///< of all global chunks
  ParameterTable table;
  RankSchedule schedule;     ///< of a process's first step
  RankSchedule later_steps;  ///< of all others
  StageLayout layout;
  PipelineBufferCounts buffers;
  MemoryPlan memory;
};

/// Throws ConfigurationError where the shape can't be, in the order in which a user would mend it.
/// `kernels` says how much scratch space they need.
RankPlan make_rank_plan(const RunShape& shape, int rank, const Kernels& kernels);

/// Takes what the plan says from the device and gives the kernels their workspace.
RankMemory allocate(const RankPlan& plan, Device& device);

/// Bytes of memory for one rank, and how many of them are taken whatever the run does.
struct DeviceCapacity {
  std::size_t bytes = 0, reserved = 0;
  std::optional<std::size_t> host;  ///< of the host beside the device; none where they are the same
  /// Of one of the `node_ranks` ranks on this node, before the run lays out its own: what its communicators
  /// have taken is reserved. A CPU is shared by them.
  static DeviceCapacity of(const Device& device, int node_ranks = 1);
};

/// The plan of the rank that needs most, with what the device has reserved. Throws ConfigurationError, with
/// the plan and the options that would make it fit, when that is more than there is.
MemoryPlan check_fits(const RunShape& shape, const Kernels& kernels, const DeviceCapacity& capacity);

}  // namespace llama3d
