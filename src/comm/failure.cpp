#include "comm/failure.hpp"

#include <cstdio>
#include <cstdlib>
#include <new>
#include <optional>

#include "base/output.hpp"
#include "base/printable.hpp"

namespace llama3d {
namespace {

struct Failure {
  ExitStatus status = ExitStatus::failure;
  std::string message;
};

/// What the exception in flight says. Call inside a handler.
Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.status(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitStatus::failure,
            "out of host memory (an allocation failed); use a smaller model or micro-batch"};
  } catch (const std::exception& error) {
    return {ExitStatus::failure, error.what()};
  } catch (...) {
    return {ExitStatus::failure, "an exception of unknown type (a bug in llama3d)"};
  }
}

/// In one write, so that lines of several ranks do not mix. What an error tells may come from a file.
void print_line(const std::string& line) {
  constexpr std::size_t longest = 4000;
  std::fflush(stdout);
  write_log(printable(line, longest) + "\n");
}

/// "status newline message" for a failure, nothing for success.
std::string encode(const std::optional<Failure>& failure) {
  return failure ? fmt::format("{}\n{}", static_cast<int>(failure->status), failure->message) : std::string();
}

Failure decode(const std::string& text) {
  const auto end = text.find('\n');
  return {static_cast<ExitStatus>(std::stoi(text.substr(0, end))), text.substr(end + 1)};
}

}  // namespace

void fail_together(ControlPlane& control, const std::function<void()>& step) {
  std::optional<Failure> own;
  try {
    step();
  } catch (...) {
    own = current_failure();
  }
  // The flag travels first: the texts only when there is something to tell.
  if (control.all_max(own ? 1 : 0) == 0) return;
  const std::vector<std::string> reports = control.all_gather(encode(own));
  const std::vector<std::string> hosts = control.all_gather(control.host());
  std::size_t failed = 0, first = reports.size();
  for (std::size_t rank = reports.size(); rank-- > 0;) {
    if (reports[rank].empty()) continue;
    ++failed;
    first = rank;
  }
  LLAMA3D_EXPECT(first < reports.size(), "a rank failed without a report");
  const Failure failure = decode(reports[first]);
  throw CollectiveError(
      failure.status, failure.message,
      failed == reports.size() ? std::string() : fmt::format("rank {} on host {}", first, hosts[first]));
}

int run_and_report(ControlPlane& control, const std::function<int()>& body) {
  try {
    return body();
  } catch (const CollectiveError& error) {
    if (control.rank() == 0)
      print_line(fmt::format("llama3d: error: {}{}", error.what(),
                             error.place().empty() ? std::string() : fmt::format(" [{}]", error.place())));
    return static_cast<int>(error.status());
  } catch (...) {
    const Failure failure = current_failure();
    const int status = static_cast<int>(failure.status);
    if (control.size() == 1) {
      print_line(fmt::format("llama3d: error: {}", failure.message));
      return status;
    }
    print_line(fmt::format("llama3d: rank {} (host {}): error: {}", control.rank(), control.host(),
                           failure.message));
    control.abort(status);
    return status;  // not reached; g++ does not trust [[noreturn]] of a virtual function
  }
}

const char* launcher_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(variable)) return rank;
  return nullptr;
}

int report_startup_failure() {
  const Failure failure = current_failure();
  const char* rank = launcher_rank();
  if (!rank || std::atoi(rank) == 0) print_line(fmt::format("llama3d: error: {}", failure.message));
  return static_cast<int>(failure.status);
}

}  // namespace llama3d
