#pragma once

namespace llama3d {

/// While alive, SIGTERM and SIGUSR1 (what schedulers send before time is up) and the first SIGINT (Ctrl-C)
/// only set a flag. One at a time.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  /// Number of the signal that came to this rank, or 0.
  static int received();
};

}  // namespace llama3d
