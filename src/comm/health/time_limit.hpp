#pragma once
// MPI's start and end may wait for a rank for ever, and no watchdog can ask yet or any more.

#include <condition_variable>
#include <mutex>
#include <thread>

namespace llama3d {

/// While it lives, a thread counts the time. After `seconds` it prints which rank waits in `what`, a literal
/// as "MPI's start", and ends the process with ExitStatus::rank_lost. Every rank speaks for itself, as they
/// cannot talk. Time in which the process was stopped does not count. 0: no limit.
class TimeLimit {
 public:
  TimeLimit(double seconds, const char* what);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace llama3d
