// A job that ends as its first argument says, for failure_test.sh.
#include <sys/types.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "mpi/failure.hpp"
#include "mpi/labels.hpp"
#include "mpi/mpi_session.hpp"
#include "support/immediate_stream.hpp"

using namespace llama3d;

namespace {

/// All ranks sum for ever; rank 1 leaves in the given way after a while.
template <class Leave>
int sum_until(MpiSession& session, Leave&& leave) {
  ControlPlane& control = session.control();
  const auto set = session.make_communicators(ProcessGrid::derive(control.size(), 1, 1, control.rank()));
  test::ImmediateStream stream;
  std::vector<float> values(1000, 1.0f);
  for (int step = 0;; ++step) {
    if (step == 10 && control.rank() == 1) leave();
    const Tensor tensor(values.data(), DType::fp32, {1000});
    set->world->all_reduce(tensor, ReduceOperation::max, labels::world_totals, stream)->wait(stream);
  }
}

int run(MpiSession& session, const std::string& ending) {
  ControlPlane& control = session.control();
  if (ending == "throw")
    return sum_until(session, [] { throw DataError("shard 7 is damaged (test); copy it again"); });
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
