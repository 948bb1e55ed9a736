#include "train/runtime.hpp"

#include <exception>
#include <limits>

namespace llama3d {

std::unique_ptr<Watchdog> watch_job(Runtime& runtime, GridCommunicators& communicators) {
  const bool limited = runtime.comm_timeout > 0;
  // A device's errors come to nobody who does not ask for them.
  if (runtime.control.size() == 1 || !(limited || runtime.device.asynchronous())) return nullptr;
  return std::make_unique<Watchdog>(
      runtime.control, communicators.log.activity(), communicators.all(),
      WatchdogOptions{.limit = limited ? runtime.comm_timeout : std::numeric_limits<double>::infinity()});
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
