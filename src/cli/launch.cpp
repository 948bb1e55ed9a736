#include "cli/launch.hpp"

#include <optional>

#include "base/output.hpp"
#include "cli/backend.hpp"
#include "comm/failure.hpp"
#include "comm/health/time_limit.hpp"
#include "train/signals.hpp"
#include "train/trainer.hpp"

namespace llama3d {

int run_job(int& argc, char**& argv, double comm_timeout, const std::function<int(const Job&)>& body) {
  try {
    // All that ranks wait for in between is the watchdog's.
    std::optional<TimeLimit> limit(std::in_place, comm_timeout, "MPI's start");
    MpiSession session(argc, argv);
    auto watchdog = watch_job(session.control(), comm_timeout);
    limit.reset();
    const Job job{session, session.control(), watchdog.get()};
    const int status = run_and_report(job.control, [&] {
      const int done = body(job);
      flush_results();
      return done;
    });
    watchdog.reset();
    limit.emplace(comm_timeout, "MPI's end");
    return status;
  } catch (...) {
    return report_startup_failure();
  }
}

int train_in(const Job& job, const TrainSettings& settings, const MachineOptions& machine) {
  fail_together(job.control, [&] { check_settings(settings); });
  const auto device = make_job_device(machine, job.control);
  Runtime runtime = make_runtime(job, *device, machine);
  return static_cast<int>(train(settings, runtime).status);
}

int launch_training(int& argc, char**& argv, const TrainSettings& settings, const MachineOptions& machine) {
  prepare_output();
  const SignalGuard signals;
  return run_job(argc, argv, settings.comm_timeout,
                 [&](const Job& job) { return train_in(job, settings, machine); });
}

}  // namespace llama3d
