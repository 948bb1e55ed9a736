#pragma once
// The machine and the job a command runs on: chosen once, at the top, by name.

#include <functional>
#include <memory>

#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/health/watchdog.hpp"
#include "comm/process_grid.hpp"
#include "compute/device.hpp"

namespace llama3d {

struct Runtime {
  Device& device;
  ControlPlane& control;
  /// Collective; once for a grid.
  std::function<std::unique_ptr<GridCommunicators>(const ProcessGrid&)> make_communicators;
  bool register_memory = false;  ///< tell communicators which memory they will move
  Watchdog* watchdog = nullptr;  ///< of the job, or none
};

/// Looks after a job while it lives; none for one rank. A communication that waits for longer than
/// `comm_timeout` seconds ends the job; 0: only one that fails does, which nobody else might ask for.
/// Collective.
std::unique_ptr<Watchdog> watch_job(ControlPlane& control, double comm_timeout);

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
