#include "comm/health/time_limit.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>

#include "base/error.hpp"
#include "base/output.hpp"
#include "comm/failure.hpp"

namespace llama3d {
namespace {

/// The end of one rank ends the others: time for them to speak, too.
constexpr std::chrono::seconds others_time{1};
constexpr std::chrono::milliseconds interval{250};
/// A sleep longer than wanted by this: the process was stopped.
constexpr std::chrono::seconds stopped_time{2};

[[noreturn]] void end_process(double seconds, const char* what) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"unknown"};
  const char* rank = launcher_rank();
  print_log(
      "llama3d: error: no progress for {} s (`comm_timeout`): rank {} (host {}) waits in {}; a rank that "
      "does not say so is stopped, cut off or was never started\n",
      seconds, rank ? rank : "0", host.data(), what);
  std::this_thread::sleep_for(others_time);
  std::_Exit(static_cast<int>(ExitStatus::rank_lost));
}

}  // namespace

TimeLimit::TimeLimit(double seconds, const char* what) {
  if (!(seconds > 0)) return;
  // Signals are for the thread that works.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, seconds, what] {
    using Clock = std::chrono::steady_clock;
    std::unique_lock lock(mutex_);
    auto begin = Clock::now();
    for (auto asleep = begin; !ended_.wait_for(lock, interval, [this] { return over_; });
         asleep = Clock::now()) {
      if (Clock::now() - asleep > interval + stopped_time) begin = Clock::now();
      if (std::chrono::duration<double>(Clock::now() - begin).count() > seconds) end_process(seconds, what);
    }
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TimeLimit::~TimeLimit() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    over_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

}  // namespace llama3d
