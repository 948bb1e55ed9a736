#include "mpi/start_limit.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>

#include "base/error.hpp"
#include "base/output.hpp"
#include "mpi/failure.hpp"

namespace llama3d {
namespace {

/// The end of one rank ends the others: time for them to speak, too.
constexpr std::chrono::seconds others_time{1};
/// Longer is no limit, and more than a clock holds.
constexpr double longest_seconds = 1e8;

[[noreturn]] void end_start(double seconds) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"unknown"};
  const char* rank = launcher_rank();
  print_log(
      "llama3d: error: no progress for {} s (--comm-timeout): rank {} (host {}) waits in MPI's start; a rank "
      "that does not say so is stopped, cut off or was never started\n",
      seconds, rank ? rank : "0", host.data());
  std::this_thread::sleep_for(others_time);
  std::_Exit(static_cast<int>(ExitStatus::rank_lost));
}

}  // namespace

StartLimit::StartLimit(double seconds) {
  if (!(seconds > 0)) return;
  // Signals are for the thread that works.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, seconds] {
    std::unique_lock lock(mutex_);
    const std::chrono::duration<double> limit(std::min(seconds, longest_seconds));
    if (!ended_.wait_for(lock, limit, [this] { return over_; })) end_start(seconds);
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

StartLimit::~StartLimit() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    over_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

}  // namespace llama3d
