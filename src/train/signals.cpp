#include "train/signals.hpp"

#include <csignal>

namespace llama3d {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void remember(int signal) {
  received_signal = signal;
}

struct sigaction previous_term, previous_usr1;

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, &previous_term);
  sigaction(SIGUSR1, &action, &previous_usr1);
}

SignalGuard::~SignalGuard() {
  sigaction(SIGTERM, &previous_term, nullptr);
  sigaction(SIGUSR1, &previous_usr1, nullptr);
}

int SignalGuard::received() {
  return received_signal;
}

}  // namespace llama3d
