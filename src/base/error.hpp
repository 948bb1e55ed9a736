#pragma once
// Errors that end a run, each with the exit status that scripts act on.

#include <fmt/format.h>

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace llama3d {

/// Exit statuses of every llama3d command; documented in the README, relied on by job scripts.
enum class ExitStatus : int {
  done = 0,
  failure = 1,
  configuration = 2,
  data = 3,
  checkpoint = 4,
  rank_lost = 5,
  numerics = 6,
  requeue = 75,
};

/// The field of an option's name, as errors have it: "tp_size" of "tp-size".
inline std::string field_of(std::string_view option) {
  std::string field(option);
  for (char& c : field)
    if (c == '-') c = '_';
  return field;
}

/// An error with the exit status of the program it ends. `what()` is one line: problem (why), suggestion. A
/// field of the settings stands in backquotes, with its value or without: "`tp_size 3`: must be ...". The
/// command line writes the option that sets it instead.
class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message) : std::runtime_error(message), status_(status) {}
  ExitStatus status() const noexcept { return status_; }

 private:
  ExitStatus status_;
};

/// The user asked for something impossible: exit status 2.
struct ConfigurationError : Error {
  explicit ConfigurationError(const std::string& message) : Error(ExitStatus::configuration, message) {}
};
/// A token, text or config file is missing, damaged or foreign: exit status 3.
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ExitStatus::data, message) {}
};
/// No checkpoint that could be loaded: exit status 4.
struct CheckpointError : Error {
  explicit CheckpointError(const std::string& message) : Error(ExitStatus::checkpoint, message) {}
};
/// Another rank is gone or does not answer: exit status 5.
struct RankLostError : Error {
  explicit RankLostError(const std::string& message) : Error(ExitStatus::rank_lost, message) {}
};
/// Loss or gradients are not finite for too long: exit status 6.
struct NumericsError : Error {
  explicit NumericsError(const std::string& message) : Error(ExitStatus::numerics, message) {}
};

/// A broken contract between two parts of the program: a bug here, never the user's fault.
class ContractViolation : public std::logic_error {
  using std::logic_error::logic_error;
};

[[noreturn]] void throw_contract_violation(const char* condition, const std::string& message,
                                           std::source_location where);

}  // namespace llama3d

/// Checks a precondition in every build type. The message is formatted only when the condition fails;
/// the condition must have no side effects.
#define LLAMA3D_EXPECT(condition, ...)                                            \
  do {                                                                            \
    if (!(condition)) [[unlikely]]                                                \
      ::llama3d::throw_contract_violation(#condition, ::fmt::format(__VA_ARGS__), \
                                          ::std::source_location::current());     \
  } while (false)
