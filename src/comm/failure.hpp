#pragma once
// How an error on some ranks becomes the end of the job on all.

#include <functional>
#include <string>

#include "base/error.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

/// An error that every rank throws at the same place with the same words. Thrown by fail_together only.
class CollectiveError : public Error {
 public:
  /// `place` names the rank the message comes from, when not all ranks failed; else it is empty.
  CollectiveError(ExitStatus status, const std::string& message, std::string place)
      : Error(status, message), place_(std::move(place)) {}
  const std::string& place() const noexcept { return place_; }

 private:
  std::string place_;
};

/// For main: runs `body` and returns the status to exit with.
///  - A CollectiveError is printed once, by rank 0, to standard error: `llama3d: error: ...`. Every rank
///  returns its
///    status, so MPI is finalized.
///  - Any other exception is this rank's alone: printed as `llama3d: rank 3 (host node7): error: ...`, then
///  all ranks
///    of the job are ended with its status. Does not return then, unless the job has a single rank.
int run_and_report(ControlPlane& control, const std::function<int()>& body);

/// This task's rank as the launcher's variables tell it, before MPI does; null where there is no launcher.
const char* launcher_rank();

/// For main, inside a handler of what MpiSession's constructor threw: prints `llama3d: error: ...` to
/// standard error, on the first task of the job as far as the launcher's variables tell, and returns the
/// status to exit with.
int report_startup_failure();

}  // namespace llama3d
