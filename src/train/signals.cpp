#include "train/signals.hpp"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>

#include "base/terminal.hpp"

namespace llama3d {
namespace {

volatile std::sig_atomic_t received_signal = 0;

/// Empty, or the answer to the first signal.
const char* volatile answer = "";

void remember(int signal) {
  if (received_signal == 0) {
    const int before = errno;
    // Nobody may read it: training does not wait for that.
    pollfd log{STDERR_FILENO, POLLOUT, 0};
    if (::poll(&log, 1, 0) == 1 && (log.revents & POLLOUT) != 0) [[maybe_unused]]
      const auto written = ::write(STDERR_FILENO, answer, std::strlen(answer));
    errno = before;
  }
  received_signal = signal;
}

constexpr int signals[] = {SIGTERM, SIGUSR1, SIGINT, SIGHUP};
struct sigaction previous[std::size(signals)];
int guards = 0;

}  // namespace

SignalGuard::SignalGuard() {
  if (guards++ > 0) return;
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < std::size(signals); ++i) {
    // Who asks twice at a terminal does not want to wait.
    action.sa_flags = signals[i] == SIGINT ? SA_RESTART | SA_RESETHAND : SA_RESTART;
    sigaction(signals[i], nullptr, &previous[i]);
    // A shell's background job is not to see Ctrl-C, nor one of nohup the end of the terminal.
    const bool from_terminal = signals[i] == SIGINT || signals[i] == SIGHUP;
    if (from_terminal && previous[i].sa_handler == SIG_IGN) continue;
    sigaction(signals[i], &action, nullptr);
  }
}

SignalGuard::~SignalGuard() {
  if (--guards > 0) return;
  answer = "";
  for (std::size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &previous[i], nullptr);
}

void SignalGuard::announce() {
  answer = stderr_is_terminal() ? "\r\033[Ka signal came: saving after this step; Ctrl-C twice ends at once\n"
                                : "a signal came: saving after this step\n";
}

int SignalGuard::received() {
  return received_signal;
}

}  // namespace llama3d
