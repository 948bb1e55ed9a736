#include "parallel/runtime.hpp"

#include <exception>
#include <limits>

namespace llama3d {

std::unique_ptr<Watchdog> watch_job(ControlPlane& control, double comm_timeout) {
  if (control.size() == 1) return nullptr;
  const double limit = comm_timeout > 0 ? comm_timeout : std::numeric_limits<double>::infinity();
  return std::make_unique<Watchdog>(control, WatchdogOptions{.limit = limit});
}

FailureGuard::~FailureGuard() {
  constexpr double seconds = 2;
  if (std::uncaught_exceptions() == 0) return;
  const bool alone = (*communicators_)->world->size() == 1;
  if (!abort_all((*communicators_)->all(), seconds)) communicators_->release();
  // Not all that has been given up comes to an end: what the GPU's copy engines wait for does not.
  if (!alone) device_->abandon();
}

}  // namespace llama3d
