#include "comm/activity.hpp"

#include <unistd.h>

#include <thread>
#include <utility>

namespace llama3d {
namespace {

/// That a watchdog has to see a failure: many times what it needs.
constexpr std::chrono::seconds patience{2};
constexpr std::chrono::milliseconds look{1};

}  // namespace

void Activity::at(RunPosition position) noexcept {
  step_.store(position.step, std::memory_order_relaxed);
  micro_batch_.store(position.micro_batch, std::memory_order_relaxed);
}

RunPosition Activity::position() const noexcept {
  return {step_.load(std::memory_order_relaxed), micro_batch_.load(std::memory_order_relaxed)};
}

void Activity::stay() noexcept {
  for (;;) ::pause();
}

void Activity::enter(Label label) noexcept {
  pass();
  entered_.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  current_.store(label.name.data(), std::memory_order_release);
}

void Activity::started(const void* queue, Label label, std::shared_ptr<const DeviceOperation> operation) {
  if (!watched_) return;
  const std::scoped_lock lock(mutex_);
  queues_[queue].push_back({label, position(), std::move(operation), std::nullopt});
}

double Activity::seconds_here() const {
  const Clock::time_point entered(Clock::duration(entered_.load(std::memory_order_relaxed)));
  return std::chrono::duration<double>(Clock::now() - entered).count();
}

void Activity::lost(Label label, const std::string& message) {
  if (!watched_) return;
  {
    const std::scoped_lock lock(failure_mutex_);
    failure_ = {{label, position(), seconds_here()}, message};
  }
  for (const auto begin = Clock::now(); Clock::now() - begin < patience;) {
    pass();
    std::this_thread::sleep_for(look);
  }
}

std::optional<FailedOperation> Activity::failure() const {
  const std::scoped_lock lock(failure_mutex_);
  return failure_;
}

std::optional<OutstandingOperation> Activity::longest() {
  const Clock::time_point now = Clock::now();
  const auto seconds_since = [now](Clock::time_point begin) {
    return std::chrono::duration<double>(now - begin).count();
  };
  std::optional<OutstandingOperation> longest;
  const auto consider = [&](const OutstandingOperation& candidate) {
    if (!longest || candidate.seconds > longest->seconds) longest = candidate;
  };
  if (const char* label = current(); *label) consider({Label{label}, position(), seconds_here()});
  const std::scoped_lock lock(mutex_);
  for (auto& [queue, operations] : queues_) {
    while (!operations.empty() && operations.front().operation->done()) operations.pop_front();
    if (operations.empty()) continue;
    Started& first = operations.front();
    if (!first.seen_begun && first.operation->begun()) first.seen_begun = now;
    if (first.seen_begun) consider({first.label, first.position, seconds_since(*first.seen_begun)});
  }
  return longest;
}

}  // namespace llama3d
