// A job that ends as its first argument says, for failure_test.sh.
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "comm/failure.hpp"
#include "comm/health/watchdog.hpp"
#include "comm/health/watched.hpp"
#include "comm/labels.hpp"
#include "mpi/mpi_session.hpp"
#include "support/immediate_stream.hpp"

using namespace llama3d;

namespace {

[[noreturn]] void stay() {
  for (;;) pause();
}

struct StuckCommunicator final : test::FailingCommunicator {
  using FailingCommunicator::FailingCommunicator;
  void abort() override { stay(); }
};

struct StuckControl final : test::OwnControl {
  using OwnControl::OwnControl;
  [[noreturn]] void abort(int) override { stay(); }
};

void sum_once(Communicator& communicator) {
  test::ImmediateStream stream;
  std::vector<float> values(1000, 1.0f);
  const Tensor tensor(values.data(), DType::fp32, {1000});
  communicator.all_reduce(tensor, ReduceOperation::max, labels::world_totals, stream)->wait(stream);
}

/// All ranks sum for ever; rank 1 leaves in the given way after a while.
template <class Leave>
int sum_until(GridCommunicators& set, int rank, Leave&& leave) {
  for (int step = 0;; ++step) {
    set.log.activity().at({step, -1});
    if (step == 10 && rank == 1) leave();
    sum_once(*set.world);
  }
}

std::unique_ptr<GridCommunicators> make_communicators(MpiSession& session) {
  const ControlPlane& control = session.control();
  return session.make_communicators(ProcessGrid::derive(control.size(), {}, control.rank()));
}

template <class Leave>
int sum_until(MpiSession& session, Leave&& leave) {
  return sum_until(*make_communicators(session), session.control().rank(), leave);
}

/// Likewise under a watchdog, which has a second to see what is wrong.
int sum_watched(MpiSession& session, const std::string& ending) {
  const auto set = make_communicators(session);
  const int rank = session.control().rank();
  StuckControl stuck_control(session.control());
  StuckCommunicator stuck(set->log);
  test::FailingCommunicator failing(set->log);
  std::vector<Communicator*> communicators = set->all();
  communicators.push_back(&failing);
  if (ending.starts_with("stuck")) communicators.push_back(&stuck);
  ControlPlane& control = ending == "stuck_everywhere" ? stuck_control : session.control();
  Watchdog watchdog(control, {.limit = 1});
  const Watch watch(&watchdog, set->log.activity(), communicators);
  // The other ranks wait by the time that this one fails.
  const auto lose = [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (ending == "lost_agreement")
      control.activity().during(labels::control_max, [] { throw RankLostError("no answer (test)"); });
    using Loses = test::FailingCommunicator::Loses;
    failing.loses = ending == "lost_start" ? Loses::start : Loses::wait;
    sum_once(failing);
  };
  if (ending.starts_with("lost")) return sum_until(*set, rank, lose);
  if (ending == "communicator") return sum_until(*set, rank, [&] { failing.fails = true; });
  if (ending == "stuck_throw")
    return sum_until(*set, rank, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2500));
      throw DataError("not told");
    });
  return sum_until(*set, rank, stay);
}

int run(MpiSession& session, const std::string& ending) {
  ControlPlane& control = session.control();
  if (ending == "throw")
    return sum_until(session, [] { throw DataError("shard 7 is damaged (test); copy it again"); });
  if (ending == "lost_unwatched")
    return sum_until(session, [&] {
      control.activity().during(labels::control_max, [] { throw RankLostError("no answer (test)"); });
    });
  if (ending == "hang" || ending == "communicator" || ending.starts_with("lost") ||
      ending.starts_with("stuck"))
    return sum_watched(session, ending);
  if (ending == "contract") return sum_until(session, [] { LLAMA3D_EXPECT(false, "a broken promise"); });
  if (ending == "sigkill") return sum_until(session, [] { kill(getpid(), SIGKILL); });
  if (ending == "sigsegv") return sum_until(session, [] { raise(SIGSEGV); });
  if (ending == "collective")
    fail_together(control, [] { throw ConfigurationError("--tp-size 3 (test); choose 2"); });
  if (ending == "one_of_all")
    fail_together(control, [&] {
      if (control.rank() == 1) throw DataError("no such file (test); look again");
    });
  if (control.rank() == 0) std::cout << "done " << ending << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    MpiSession session(argc, argv);
    return run_and_report(session.control(), [&] { return run(session, argc > 1 ? argv[1] : ""); });
  } catch (...) {
    return report_startup_failure();
  }
}
