#include "train/signals.hpp"

#include <csignal>
#include <iterator>

namespace llama3d {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void remember(int signal) {
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
  for (std::size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &previous[i], nullptr);
}

int SignalGuard::received() {
  return received_signal;
}

}  // namespace llama3d
