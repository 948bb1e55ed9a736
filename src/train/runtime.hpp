#pragma once
// The machine and the job a command runs on: chosen once, at the top, by name.

#include <functional>
#include <memory>

#include "compute/device.hpp"
#include "mpi/communicator.hpp"
#include "mpi/control_plane.hpp"
#include "mpi/process_grid.hpp"
#include "mpi/watchdog.hpp"

namespace llama3d {

struct Runtime {
  Device& device;
  ControlPlane& control;
  /// Collective; once for a grid.
  std::function<std::unique_ptr<GridCommunicators>(const ProcessGrid&)> make_communicators;
  bool register_memory = false;  ///< tell communicators which memory they will move
  double comm_timeout = 0;       ///< seconds a communication may wait before the job is ended; 0: no limit
};

/// What looks after the job's communication while it lives; none where there is nothing to look after.
/// Collective.
std::unique_ptr<Watchdog> watch_job(Runtime& runtime, GridCommunicators& communicators);

/// The last member of what computes with communicators. A rank that fails alone has work on its device that
/// waits for others for ever, and freeing memory would wait too: while an exception goes by, the end of this
/// gives the communicators up and, where there are other ranks, leaves memory to the end of the process.
class FailureGuard {
 public:
  FailureGuard(std::unique_ptr<GridCommunicators>& communicators, Device& device)
      : communicators_(&communicators), device_(&device) {}
  ~FailureGuard();
  FailureGuard(const FailureGuard&) = delete;
  FailureGuard& operator=(const FailureGuard&) = delete;

 private:
  std::unique_ptr<GridCommunicators>* communicators_;
  Device* device_;
};

}  // namespace llama3d
