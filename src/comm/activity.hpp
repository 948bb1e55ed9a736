#pragma once
// What a rank waits for right now. Told by the thread that communicates, asked by any other: by the watchdog,
// whose report of a hang says who waits for what since when.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "comm/label.hpp"
#include "compute/device.hpp"

namespace llama3d {

/// When a communication was under way, in seconds from some origin, and how long, up to its end, computing
/// stood still for it: for longer than it was under way where others were before it in its queue meanwhile.
struct OperationTimes {
  double begin = 0, end = 0, exposed = 0;
};

/// A communication that a device carries out.
class DeviceOperation {
 public:
  virtual ~DeviceOperation() = default;
  /// Nothing on this rank holds it up any more: from here on it waits for other ranks or moves data. From any
  /// thread, like `done`.
  virtual bool begun() const = 0;
  virtual bool done() const = 0;
  /// Of one that the device was told to time, from the moment the device passed `origin`. Valid once it has
  /// passed the wait for the operation.
  virtual OperationTimes times(const Event& origin) const = 0;
};

/// Where in the run something belongs. Micro-batch -1: none in particular.
struct RunPosition {
  std::int64_t step = 0, micro_batch = -1;
};

/// A communication that is not done.
struct OutstandingOperation {
  Label label;
  RunPosition position;
  double seconds = 0;  ///< that it has been waiting
};

/// One that failed because another rank, or the network to it, is gone.
struct FailedOperation {
  OutstandingOperation operation;  ///< when it did
  std::string message;
};

class Activity {
 public:
  /// What is started from here on belongs to this position.
  void at(RunPosition position) noexcept;
  RunPosition position() const noexcept;
  /// Likewise, of the same step.
  void micro_batch(std::int64_t index) noexcept { micro_batch_.store(index, std::memory_order_relaxed); }

  /// Carries out an operation that holds the host. One that fails stays current. When it fails because a rank
  /// is lost (RankLostError), the thread stays here while a watchdog that looks ends the job; the error goes
  /// on if none does.
  template <class Operation>
  void during(Label label, Operation&& operation) {
    enter(label);
    try {
      std::forward<Operation>(operation)();
    } catch (const RankLostError& error) {
      lost(label, error.what());
      throw;
    }
    leave();
  }
  /// The brackets of `during`.
  void enter(Label label) noexcept;
  void leave() noexcept {
    pass();
    current_.store("", std::memory_order_release);
  }
  /// The label's name of the operation that holds the host, or "".
  const char* current() const noexcept { return current_.load(std::memory_order_acquire); }

  /// What the run is doing that its operations are part of, a literal, or "".
  void phase(const char* name) noexcept { phase_.store(name, std::memory_order_release); }
  const char* phase() const noexcept { return phase_.load(std::memory_order_acquire); }

  /// The job is being ended: from here on `enter`, `leave` and `pass` do not return, so that whoever gets
  /// there neither computes on nor records or saves anything. From any thread.
  void halt() noexcept { halted_.store(true); }
  /// For a host that has waited for a device, which may have been freed by force.
  void pass() const noexcept {
    if (halted_.load(std::memory_order_acquire)) [[unlikely]]
      stay();
  }

  /// Whether a watchdog looks at this from here on. If none does, neither what devices do nor what fails is
  /// kept.
  void watched(bool yes) noexcept { watched_.store(yes); }
  /// A device will carry out `operation` behind those that were started before in the same queue. Operations
  /// of one queue run one after another.
  void started(const void* queue, Label label, std::shared_ptr<const DeviceOperation> operation);

  /// The operation that has been waiting longest. A device's counts from when it is first seen to have begun.
  std::optional<OutstandingOperation> longest();
  /// The operation because of which the job is lost.
  std::optional<FailedOperation> failure() const;

 private:
  using Clock = std::chrono::steady_clock;
  [[noreturn]] static void stay() noexcept;
  void lost(Label label, const std::string& message);
  double seconds_here() const;
  struct Started {
    Label label;
    RunPosition position;
    std::shared_ptr<const DeviceOperation> operation;
    std::optional<Clock::time_point> seen_begun;
  };

  std::atomic<std::int64_t> step_{0}, micro_batch_{-1};
  std::atomic<const char*> current_{""}, phase_{""};
  std::atomic<Clock::rep> entered_{0};
  std::atomic<bool> watched_{false}, halted_{false};
  std::mutex mutex_;
  std::map<const void*, std::deque<Started>> queues_;
  mutable std::mutex failure_mutex_;  ///< mutex_ is held while devices are asked
  std::optional<FailedOperation> failure_;
};

/// While it lives, operations belong to a phase of the run, a literal.
class Phase {
 public:
  Phase(Activity& activity, const char* name) : activity_(&activity) { activity_->phase(name); }
  ~Phase() { activity_->phase(""); }
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

 private:
  Activity* activity_;
};

}  // namespace llama3d
