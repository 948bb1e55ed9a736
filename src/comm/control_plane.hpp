#pragma once
// Small host-side agreements between all ranks of a job: settings, errors, flags. Blocking; not for tensors.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/activity.hpp"

namespace llama3d {

class ControlPlane {
 public:
  virtual ~ControlPlane() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Ranks that share this rank's node, and this rank's place among them.
  virtual int node_rank() const = 0;
  virtual int node_size() const = 0;
  virtual std::string host() const = 0;

  /// Every rank gets root's text.
  virtual std::string broadcast(const std::string& text, int root) = 0;
  /// Every rank's text in rank order, on every rank.
  virtual std::vector<std::string> all_gather(const std::string& text) = 0;
  /// Largest value over all ranks.
  virtual std::int64_t all_max(std::int64_t value) = 0;
  virtual void barrier() = 0;

  /// Ends all ranks of the job at once with this status, from any thread. Does not return.
  [[noreturn]] virtual void abort(int status) = 0;

  /// What this rank waits for here.
  Activity& activity() { return activity_; }

 private:
  Activity activity_;
};

/// A job of one process.
std::unique_ptr<ControlPlane> make_local_control_plane();

/// Runs `step` on every rank; when it throws an Error on any, throws the same Error on all: that of the
/// lowest rank that failed, so that every rank tells the same story. Other exceptions count as
/// ExitStatus::failure.
void fail_together(ControlPlane& control, const std::function<void()>& step);

}  // namespace llama3d
