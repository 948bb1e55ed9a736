#pragma once

#include <string>

namespace llama3d {

/// The machine a rank computes on.
struct MachineOptions {
  std::string device = "auto";  ///< cpu, cuda, or auto: cuda where every rank has a GPU of its own
  int threads = 0;              ///< a rank on CPUs; 0: the cores, divided by the ranks that may use the same
  bool register_buffers = false;   ///< tensor parallelism: NCCL reads and writes other GPUs' tensors in place
  bool allow_gpu_sharing = false;  ///< several ranks on one GPU: for tests, since they take turns
};

}  // namespace llama3d
