#pragma once
// MPI's start may wait for a rank that never comes, and no watchdog can ask yet.

#include <condition_variable>
#include <mutex>
#include <thread>

namespace llama3d {

/// While it lives, a thread counts the time. After `seconds` it prints which rank waits and ends the process
/// with ExitStatus::rank_lost. Every rank speaks for itself, as they cannot talk. 0: no limit.
class StartLimit {
 public:
  explicit StartLimit(double seconds);
  ~StartLimit();
  StartLimit(const StartLimit&) = delete;
  StartLimit& operator=(const StartLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace llama3d
