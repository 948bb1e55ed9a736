#include "base/output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "base/error.hpp"

using namespace llama3d;

namespace {

/// While it lives, one of the standard descriptors leads elsewhere.
class Redirected {
 public:
  Redirected(int standard, int elsewhere) : standard_(standard), before_(::dup(standard)) {
    ::dup2(elsewhere, standard);
  }
  ~Redirected() {
    ::dup2(before_, standard_);
    ::close(before_);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;

 private:
  int standard_, before_;
};

struct Pipe {
  Pipe() {
    BOOST_REQUIRE(::pipe(ends.data()) == 0);
    prepare_output();
  }
  ~Pipe() {
    close_reader();
    ::close(ends[1]);
  }
  void close_reader() {
    if (ends[0] >= 0) ::close(ends[0]);
    ends[0] = -1;
  }
  void set_waiting(int end, bool waiting) { ::fcntl(ends[end], F_SETFL, waiting ? 0 : O_NONBLOCK); }
  void fill() {
    set_waiting(1, false);
    const std::array<char, 4096> bytes{};
    while (::write(ends[1], bytes.data(), bytes.size()) > 0) continue;
    set_waiting(1, true);
  }
  std::string drain() {
    set_waiting(0, false);
    std::string text;
    std::array<char, 4096> bytes{};
    for (ssize_t got = 0; (got = ::read(ends[0], bytes.data(), bytes.size())) > 0;)
      text.append(bytes.data(), static_cast<std::size_t>(got));
    return text;
  }

  std::array<int, 2> ends{-1, -1};
};

double seconds_of(const std::string& line) {
  const auto begin = std::chrono::steady_clock::now();
  write_log(line);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(output, Pipe)

BOOST_AUTO_TEST_CASE(a_log_whose_reader_is_gone_costs_its_lines_only) {
  close_reader();
  const Redirected log(STDERR_FILENO, ends[1]);
  write_log("nobody reads this\n");
  print_log("nor {}\n", "this");
}

BOOST_AUTO_TEST_CASE(a_log_that_nobody_takes_is_waited_for_once_and_then_tells_of_the_gap) {
  fill();
  const Redirected log(STDERR_FILENO, ends[1]);
  BOOST_TEST(seconds_of("lost\n") > 1.0);
  BOOST_TEST(seconds_of("lost, too\n") < 1.0);
  drain();
  write_log("after the gap\n");
  BOOST_TEST(drain() == "\n... (some lines are missing: nobody took them)\nafter the gap\n");
  write_log("as ever\n");
  BOOST_TEST(drain() == "as ever\n");
}

BOOST_AUTO_TEST_CASE(results_that_a_full_disk_does_not_take_are_an_error) {
  const int full = ::open("/dev/full", O_WRONLY);
  BOOST_REQUIRE(full >= 0);
  const auto refused = [](const Error& error) {
    return error.status() == ExitStatus::failure &&
           std::string(error.what())
               .starts_with("standard output cannot be written (No space left on device)");
  };
  {
    const Redirected out(STDOUT_FILENO, full);
    print_result("{}\n", "a result");
    BOOST_CHECK_EXCEPTION(flush_results(), Error, refused);
  }
  std::clearerr(stdout);
  ::close(full);
}

BOOST_AUTO_TEST_CASE(results_without_a_reader_are_an_error_where_the_caller_ignores_sigpipe) {
  std::signal(SIGPIPE, SIG_IGN);
  prepare_output();
  close_reader();
  {
    const Redirected out(STDOUT_FILENO, ends[1]);
    write_result("a result\n");
    BOOST_CHECK_THROW(flush_results(), Error);
  }
  std::clearerr(stdout);
}

BOOST_AUTO_TEST_SUITE_END()
