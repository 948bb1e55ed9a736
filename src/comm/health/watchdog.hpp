#pragma once
// Ends a job that does not move any more, and says who waits for what.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/health/datagrams.hpp"
#include "comm/health/hang_report.hpp"

namespace llama3d {

struct WatchdogOptions {
  double limit = 600;             ///< seconds an operation may wait
  double answer_seconds = 2;      ///< that the other ranks have to say what they do
  double patience_seconds = 6.5;  ///< that a rank leaves the report and the end of the job to another one
  /// Takes the report, or "" where another rank has reported, instead of its being printed and the job ended:
  /// for tests.
  std::function<void(const std::string& report)> end = {};
};

/// What watchdogs send each other: "what do you do?", the answer, or "I report and end the job".
struct WatchdogMessage {
  enum class Kind { question, answer, report };
  Kind kind = Kind::question;
  bool asks = false;  ///< the sender is asking itself
  RankState state;    ///< of an answer

  std::string encode() const;
  static WatchdogMessage decode(const std::string& text);
};

/// A thread beside the one that works, between MPI's start and end. A rank whose operation has
/// waited for longer than the limit, or one of whose communicators or operations failed, asks all ranks for
/// their states, prints them and ends the job with ExitStatus::rank_lost. Of several such ranks the lowest
/// does: a rank that is asked leaves it to the asker, and an asker to a lower one. From asking and being
/// asked on the job is lost: the activities are halted. The thread makes no MPI call but the last one,
/// ControlPlane::abort. Time in which this process was stopped counts as no waiting.
class Watchdog {
 public:
  /// Collective. Looks at the activity of the control plane, which must outlive the watchdog.
  Watchdog(ControlPlane& control, WatchdogOptions options);
  /// Ends the thread; does not return while the job is being ended.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  friend class Watch;
  using Clock = std::chrono::steady_clock;

  void look_at(Activity& communication, std::vector<Communicator*> communicators);
  void look_away();
  void run();
  /// Sleeps until a datagram comes, at most for so long; false when told to stop.
  bool sleep(double seconds);
  void receive();
  /// What this rank does right now.
  RankState look() const;
  bool in_trouble(const RankState& state) const;
  /// The job is lost, and this is what the rank was doing.
  void freeze(RankState state);
  /// Asks the others until all have answered or their time is up. False when told to stop.
  bool ask();
  bool all_answered() const;
  /// Waits for another rank to end the job. False when told to stop.
  bool stand_by();
  void tell_all(const WatchdogMessage& message, bool only_missing);
  std::string headline() const;
  void end(const std::string& report);

  ControlPlane* control_;
  WatchdogOptions options_;
  std::vector<std::string> hosts_;
  Datagrams datagrams_;
  Descriptor stop_;
  mutable std::mutex mutex_;
  std::condition_variable never_;      ///< what waits for the end of the process
  Activity* communication_ = nullptr;  ///< or none
  std::vector<Communicator*> communicators_;
  bool frozen_ = false;  ///< changed by the thread
  // The thread's own.
  std::vector<std::optional<RankState>> states_;  ///< by rank, as told
  bool asks_ = false, yields_ = false, reported_ = false;
  Clock::time_point resumed_, frozen_at_;
  std::thread thread_;
};

/// While it lives, a watchdog looks at the communication of a run too. One at a time.
class Watch {
 public:
  /// `communication` knows the position in the run. It, the communicators and the watchdog must outlive this.
  /// `watchdog` may be none. Does not return while the job is being ended, as the end of this does not.
  Watch(Watchdog* watchdog, Activity& communication, std::vector<Communicator*> communicators);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Watchdog* watchdog_;
};

}  // namespace llama3d
