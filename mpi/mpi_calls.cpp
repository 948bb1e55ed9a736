#include "mpi/mpi_calls.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"

namespace llama3d {
namespace {

// Measured with 8 ranks on 2 cores, Open MPI 4.1.4, all-reduce of 16 floats: 1240 us without spins, 280 us
// with 16, 60 to 100 us from 64 on. Sleeping keeps ranks that wait for long (a checkpoint, a slow stage) off
// the cores.
constexpr int spins = 500;
constexpr std::chrono::microseconds shortest_sleep{20}, longest_sleep{200};

int first_error(int code, std::span<const MPI_Status> statuses) {
  if (code != MPI_ERR_IN_STATUS) return code;
  for (const MPI_Status& status : statuses)
    if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) return status.MPI_ERROR;
  return code;
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::string words(MPI_MAX_ERROR_STRING, '\0');
  int length = 0;
  if (MPI_Error_string(code, words.data(), &length) != MPI_SUCCESS) length = 0;
  words.resize(static_cast<std::size_t>(length));
  throw RankLostError(
      fmt::format("{} failed ({}); another rank or the network to it may be lost, see what the launcher says "
                  "and start again",
                  call, words.empty() ? fmt::format("code {}", code) : words));
}

void wait_all(std::span<MPI_Request> requests, const char* call) {
  std::vector<MPI_Status> statuses(requests.size());
  auto sleep = shortest_sleep;
  for (int tests = 0;; ++tests) {
    int done = 0;
    const int code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, statuses.data());
    check_mpi(first_error(code, statuses), call);
    if (done) return;
    if (tests < spins) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(sleep);
      sleep = std::min(2 * sleep, longest_sleep);
    }
  }
}

bool may_release_handles() noexcept {
  if (std::uncaught_exceptions() > 0) return false;
  int initialized = 0, finalized = 1;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

CommHandle duplicate_comm(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup");
  CommHandle handle(copy);
  check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return handle;
}

CommHandle split_comm(MPI_Comm comm, int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm, color, key, &part), "MPI_Comm_split");
  CommHandle handle(part);
  if (handle) check_mpi(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return handle;
}

}  // namespace llama3d
