#pragma once
// Things for a watchdog to look at.

#include <atomic>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/finished_work.hpp"

namespace llama3d::test {

/// Another control plane with an activity of its own, which a watchdog may halt.
class OwnControl : public ControlPlane {
 public:
  explicit OwnControl(ControlPlane& other) : other_(&other) {}
  int rank() const override { return other_->rank(); }
  int size() const override { return other_->size(); }
  int node_rank() const override { return other_->node_rank(); }
  int node_size() const override { return other_->node_size(); }
  std::string host() const override { return other_->host(); }
  std::string broadcast(const std::string& text, int root) override { return other_->broadcast(text, root); }
  std::vector<std::string> all_gather(const std::string& text) override { return other_->all_gather(text); }
  std::int64_t all_max(std::int64_t value) override { return other_->all_max(value); }
  void barrier() override { other_->barrier(); }
  [[noreturn]] void abort(int status) override {
    other_->abort(status);
    std::abort();  // not reached; g++ does not trust [[noreturn]] of a virtual function
  }

 private:
  ControlPlane* other_;
};

/// Moves nothing; fails when the test says so.
class FailingCommunicator : public Communicator {
 public:
  explicit FailingCommunicator(CommunicationLog& log) : Communicator(0, 1, log) {}
  std::optional<std::string> asynchronous_failure() override {
    return fails ? std::optional<std::string>("unhandled system error:\nconnection reset") : std::nullopt;
  }
  std::atomic<bool> fails{false};
  /// Where an all-reduce finds that another rank is gone.
  enum class Loses { nowhere, start, wait } loses = Loses::nowhere;

 protected:
  WorkHandle do_all_reduce(const Tensor&, ReduceOperation, Stream&) override {
    if (loses == Loses::start) lose();
    if (loses == Loses::wait) return std::make_unique<LostWork>();
    return nothing();
  }
  WorkHandle do_all_gather(const Tensor&, const Tensor&, Stream&) override { return nothing(); }
  WorkHandle do_reduce_scatter(const Tensor&, const Tensor&, Stream&) override { return nothing(); }
  WorkHandle do_broadcast(const Tensor&, int, Stream&) override { return nothing(); }
  WorkHandle do_exchange(std::span<const Transfer>, Stream&) override { return nothing(); }

 private:
  [[noreturn]] static void lose() { throw RankLostError("all-reduce failed (test):\nconnection closed"); }
  struct LostWork final : Work {
    void wait(Stream&) override { lose(); }
  };
  static WorkHandle nothing() { return std::make_unique<FinishedWork>(); }
};

}  // namespace llama3d::test
