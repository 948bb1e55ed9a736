#include "train/signals.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <csignal>
#include <string>

using namespace llama3d;

namespace {

int seen = 0;
void see(int signal) {
  seen = signal;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(signals)

BOOST_AUTO_TEST_CASE(each_signal_that_asks_for_an_end_sets_the_flag) {
  for (const int signal : {SIGTERM, SIGUSR1, SIGHUP, SIGINT}) {
    std::signal(signal, see);
    const SignalGuard guard;
    BOOST_TEST(SignalGuard::received() == 0);
    std::raise(signal);
    BOOST_TEST(SignalGuard::received() == signal);
  }
  BOOST_TEST(seen == 0);
}

BOOST_AUTO_TEST_CASE(a_guard_within_another_keeps_what_came_before_it) {
  std::signal(SIGUSR1, see);
  {
    const SignalGuard outer;
    std::raise(SIGUSR1);
    {
      const SignalGuard inner;
      BOOST_TEST(SignalGuard::received() == SIGUSR1);
    }
    std::raise(SIGUSR1);
  }
  BOOST_TEST(seen == 0);
  std::raise(SIGUSR1);
  BOOST_TEST(seen == SIGUSR1);
  seen = 0;
}

BOOST_AUTO_TEST_CASE(the_first_signal_is_answered_at_once_and_only_it) {
  std::array<int, 2> ends{};
  BOOST_REQUIRE(::pipe2(ends.data(), O_NONBLOCK) == 0);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  std::array<char, 256> text{};
  const auto said = [&] {
    const auto bytes = ::read(ends[0], text.data(), text.size());
    return std::string(text.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
  };
  std::string none, first, second;
  {
    const SignalGuard guard;
    SignalGuard::announce();
    none = said();
    std::raise(SIGUSR1);
    first = said();
    std::raise(SIGUSR1);
    second = said();
  }
  ::dup2(before, STDERR_FILENO);
  for (const int end : {ends[0], ends[1], before}) ::close(end);
  BOOST_TEST(none == "");
  BOOST_TEST(first.find("saving after this step") != std::string::npos, first);
  BOOST_TEST(second == "");
}

BOOST_AUTO_TEST_CASE(what_the_caller_ignores_from_a_terminal_stays_ignored) {
  for (const int signal : {SIGHUP, SIGINT}) {
    std::signal(signal, SIG_IGN);
    const SignalGuard guard;
    std::raise(signal);
    BOOST_TEST(SignalGuard::received() == 0);
    std::signal(signal, SIG_DFL);
  }
}

BOOST_AUTO_TEST_SUITE_END()
