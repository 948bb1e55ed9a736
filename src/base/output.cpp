#include "base/output.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <string_view>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// For standard error to take text, once: as long as it is stalled nobody waits for it again.
constexpr int patience_ms = 2000;

bool caller_ignores_pipes = false;
std::atomic<bool> log_stalled{false};
std::atomic<std::string (*)(std::string_view)> log_words{nullptr};

bool is_ignored(int signal) {
  struct sigaction action = {};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

[[noreturn]] void refuse_output(int error) {
  if (error == EPIPE && !caller_ignores_pipes) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  throw Error(ExitStatus::failure, fmt::format("standard output cannot be written ({}); free space, or send "
                                               "it elsewhere",
                                               std::strerror(error)));
}

/// Standard error has room for PIPE_BUF bytes, before time is up.
bool takes_text(int patience) {
  pollfd out = {STDERR_FILENO, POLLOUT, 0};
  int ready = 0;
  do ready = ::poll(&out, 1, patience);
  while (ready < 0 && errno == EINTR);
  return ready != 0;
}

/// False where standard error does not take it now.
bool write_all(std::string_view text, int patience) {
  while (!text.empty()) {
    if (!takes_text(patience)) return false;
    const auto written = ::write(STDERR_FILENO, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (written > 0)
      text.remove_prefix(static_cast<std::size_t>(written));
    else if (errno != EINTR && errno != EAGAIN)
      return true;  // it takes nothing at all
  }
  return true;
}

}  // namespace

void prepare_output() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(standard, F_GETFD) < 0 && errno == EBADF)
      ::open("/dev/null", standard == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  caller_ignores_pipes = is_ignored(SIGPIPE);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void write_result(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) refuse_output(errno);
}

void flush_results() {
  if (std::fflush(stdout) != 0) refuse_output(errno);
}

void set_log_words(std::string (*words)(std::string_view)) {
  log_words = words;
}

void write_log(std::string_view text) noexcept {
  std::string said;
  if (const auto words = log_words.load()) try {
      said = words(text);
      text = said;
    } catch (const std::bad_alloc&) {
      // As it is, then.
    }
  const bool stalled = log_stalled;
  const int patience = stalled ? 0 : patience_ms;
  if (stalled && !write_all("\n... (some lines are missing: nobody took them)\n", patience)) return;
  log_stalled = !write_all(text, patience);
}

}  // namespace llama3d
