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

void give_up_when_failing(std::unique_ptr<GridCommunicators>& communicators, Device& device) {
  constexpr double seconds = 2;
  if (std::uncaught_exceptions() == 0 || abort_all(communicators->all(), seconds)) return;
  communicators.release();
  device.abandon();
}

}  // namespace llama3d
