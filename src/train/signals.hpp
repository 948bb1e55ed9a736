#pragma once

namespace llama3d {

/// While alive, SIGTERM and SIGUSR1 (what schedulers send before time is up), SIGHUP (the terminal is gone)
/// and the first SIGINT (Ctrl-C) only set a flag. SIGHUP and SIGINT stay ignored where the caller ignores
/// them. One within another changes nothing.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  /// From here on the first signal is answered on standard error at once: a step may take long.
  static void announce();
  /// Number of the signal that came to this rank since the outermost guard was made, or 0.
  static int received();
};

}  // namespace llama3d
