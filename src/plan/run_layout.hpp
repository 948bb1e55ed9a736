#pragma once
// How a run is laid out over ranks and memory, as its user decides: the part that training, planning,
// evaluation and measurement share. A fact has one name here, on the command line and in errors.

#include <cstdint>
#include <vector>

#include "compute/precision.hpp"
#include "model/stage_shape.hpp"
#include "optim/optimizer_state.hpp"
#include "parallel/tensor_parallel.hpp"
#include "pipeline/schedule.hpp"

namespace llama3d {

struct RunLayout {
  // grid
  bool tp_overlap = true;     ///< tensor-parallel communication runs beside GEMMs
  int tp_overlap_blocks = 0;  ///< in which rows travel; 0: measured on GPUs, 1 on CPUs
  ScheduleKind pipeline_schedule = ScheduleKind::one_f_one_b;
  bool pipeline_receive_ahead = false;  ///< receives start a computation early, from the second step on
  int pipeline_chunks = 0;              ///< model chunks a stage; 0: 2 for interleaved, else 1
  std::vector<int> pipeline_layers;     ///< layers of every part of the pipeline; empty: balanced

  // batch
  std::int64_t micro_batch_size = 1;   ///< sequences
  std::int64_t global_batch_size = 0;  ///< sequences; 0: micro-batch size x DP x stages
  std::int64_t seq_length = 1024;      ///< tokens

  // precision and memory
  const PrecisionRecipe* precision = &precision_of(DType::fp32);
  bool master_weights = true;           ///< fp32 weights beside bf16 parameters
  DType gradient_dtype = DType::fp32;   ///< of accumulated gradients
  DType optimizer_dtype = DType::fp32;  ///< of AdamW's moments
  bool offload_optimizer = false;       ///< its moments and master weights stay in host memory
  std::int64_t offload_chunk = StateOptions().offload_chunk;  ///< elements of them on the device at once
  Recompute recompute = Recompute::none;

  DType compute() const { return precision->compute; }
  int chunks() const {
    return pipeline_chunks > 0 ? pipeline_chunks : pipeline_schedule == ScheduleKind::interleaved ? 2 : 1;
  }
  ReceiveStart receives() const {
    return pipeline_receive_ahead ? ReceiveStart::ahead : ReceiveStart::when_needed;
  }
  StateOptions states() const {
    return {.gradient = gradient_dtype,
            .moments = optimizer_dtype,
            .master = master_weights,
            .offload = offload_optimizer,
            .offload_chunk = offload_chunk};
  }
  TensorParallelOverlap overlap() const { return {.enabled = tp_overlap, .blocks = tp_overlap_blocks}; }
};

}  // namespace llama3d
