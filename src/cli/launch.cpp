#include "cli/launch.hpp"

#include "base/output.hpp"
#include "cli/backend.hpp"
#include "mpi/failure.hpp"
#include "train/signals.hpp"
#include "train/trainer.hpp"

namespace llama3d {

int run_job(int& argc, char**& argv, double comm_timeout, const std::function<int(MpiSession&)>& body) {
  try {
    MpiSession session(argc, argv, comm_timeout);
    return run_and_report(session.control(), [&] {
      const int status = body(session);
      flush_results();
      return status;
    });
  } catch (...) {
    return report_startup_failure();
  }
}

int train_in(MpiSession& session, const TrainSettings& settings, const MachineOptions& machine) {
  ControlPlane& control = session.control();
  fail_together(control, [&] { check_settings(settings); });
  const auto watchdog = watch_job(control, settings.comm_timeout);
  const auto device = make_job_device(machine, control);
  Runtime runtime = make_runtime(session, *device, machine, watchdog.get());
  return static_cast<int>(train(settings, runtime).status);
}

int launch_training(int& argc, char**& argv, const TrainSettings& settings, const MachineOptions& machine) {
  prepare_output();
  const SignalGuard signals;
  return run_job(argc, argv, settings.comm_timeout,
                 [&](MpiSession& session) { return train_in(session, settings, machine); });
}

}  // namespace llama3d
