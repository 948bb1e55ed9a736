#include "comm/health/watchdog.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <future>
#include <memory>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/output.hpp"

namespace llama3d {
namespace {

/// A look at everything, and a question that was not answered, come again after so long.
constexpr double longest_interval = 0.25;
/// A sleep longer than wanted by this: the process was stopped.
constexpr double stopped_seconds = 2;
/// For ncclCommAbort and the like.
constexpr double abort_seconds = 2;
/// From the question on until this rank ends by itself, though MPI_Abort may still be at work.
constexpr std::chrono::seconds end_time{9};
/// So that an answer fits into a datagram.
constexpr std::size_t longest_failure = 800;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

RankState state_of(const FailedOperation& failed, RunPosition position) {
  const std::string label(failed.operation.label.name);
  return {label, failed.operation.seconds, position, one_line(label + ": " + failed.message)};
}

}  // namespace

std::string WatchdogMessage::encode() const {
  if (kind == Kind::question) return "?";
  if (kind == Kind::report) return "!";
  RankState told = state;
  told.failure = told.failure.substr(0, longest_failure);
  return (asks ? "asks " : "told ") + told.encode();
}

WatchdogMessage WatchdogMessage::decode(const std::string& text) {
  if (text == "?") return {Kind::question, true, {}};
  if (text == "!") return {Kind::report, true, {}};
  return {Kind::answer, text.starts_with("asks "), RankState::decode(text.substr(5))};
}

Watchdog::Watchdog(ControlPlane& control, WatchdogOptions options)
    : control_(&control),
      options_(std::move(options)),
      hosts_(control.all_gather(control.host())),
      datagrams_(control, hosts_),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      states_(hosts_.size()),
      resumed_(Clock::now()) {
  LLAMA3D_EXPECT(options_.limit > 0, "a limit of {} s", options_.limit);
  LLAMA3D_EXPECT(stop_, "no eventfd");
  // Signals are for the thread that works.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "watchdog");
  control_->activity().watched(true);
}

Watchdog::~Watchdog() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
  control_->activity().watched(false);
}

void Watchdog::look_at(Activity& communication, std::vector<Communicator*> communicators) {
  std::unique_lock lock(mutex_);
  never_.wait(lock, [this] { return !frozen_ || options_.end; });
  LLAMA3D_EXPECT(!communication_, "two runs at once under one watchdog");
  communication_ = &communication;
  communication_->watched(true);
  communicators_ = std::move(communicators);
}

void Watchdog::look_away() {
  std::unique_lock lock(mutex_);
  never_.wait(lock, [this] { return !frozen_ || options_.end; });
  communication_->watched(false);
  communication_ = nullptr;
  communicators_.clear();
}

void Watchdog::run() {
  const double interval = std::clamp(options_.limit / 10, 1e-3, longest_interval);
  while (!frozen_) {
    if (!sleep(interval)) return;
    receive();
    if (frozen_) break;
    RankState state = look();
    if (!in_trouble(state)) continue;
    asks_ = true;
    freeze(std::move(state));
  }
  if (asks_ && !ask()) return;
  if ((!asks_ || yields_) && !stand_by()) return;
  if (reported_) return end("");
  tell_all({WatchdogMessage::Kind::report, true, {}}, false);
  end(hang_report(headline(), hosts_, states_, control_->rank()));
}

bool Watchdog::sleep(double seconds) {
  // While the job is being ended, whoever destroys the watchdog waits for the end.
  const bool may_stop = !frozen_ || options_.end;
  pollfd watched[] = {{datagrams_.descriptor(), POLLIN, 0}, {may_stop ? stop_.get() : -1, POLLIN, 0}};
  const auto begin = Clock::now();
  ::poll(watched, 2, static_cast<int>(std::ceil(std::max(seconds, 0.0) * 1e3)));
  if (seconds_since(begin) > seconds + stopped_seconds) resumed_ = Clock::now();
  return watched[1].revents == 0;
}

void Watchdog::receive() {
  using Kind = WatchdogMessage::Kind;
  auto& own = states_[static_cast<std::size_t>(control_->rank())];
  while (const auto received = datagrams_.receive()) {
    if (received->rank == control_->rank()) continue;
    const auto message = WatchdogMessage::decode(received->text);
    if (message.kind == Kind::answer)
      states_[static_cast<std::size_t>(received->rank)] = message.state;
    else if (!frozen_)
      freeze(look());
    if (message.kind == Kind::question)
      datagrams_.answer(*received, WatchdogMessage{Kind::answer, asks_, *own}.encode());
    reported_ = reported_ || message.kind == Kind::report;
    yields_ = yields_ || reported_ || (message.asks && received->rank < control_->rank());
  }
}

RankState Watchdog::look() const {
  const std::scoped_lock lock(mutex_);
  const RunPosition position = communication_ ? communication_->position() : RunPosition();
  // First, as nothing has to be asked for it that might not answer.
  if (const auto failed = communication_ ? communication_->failure() : std::nullopt)
    return state_of(*failed, failed->operation.position);
  if (const auto failed = control_->activity().failure()) return state_of(*failed, position);
  RankState state;
  state.position = position;
  if (const auto waits = communication_ ? communication_->longest() : std::nullopt)
    state = {std::string(waits->label.name), waits->seconds, waits->position, {}};
  if (const auto waits = control_->activity().longest(); waits && waits->seconds > state.seconds)
    state = {std::string(waits->label.name), waits->seconds, position, {}};
  for (Communicator* communicator : communicators_)
    if (const auto failure = communicator->asynchronous_failure()) state.failure = one_line(*failure);
  return state;
}

bool Watchdog::in_trouble(const RankState& state) const {
  const bool late = !state.label.empty() && std::min(state.seconds, seconds_since(resumed_)) > options_.limit;
  return late || !state.failure.empty();
}

void Watchdog::freeze(RankState state) {
  const std::scoped_lock lock(mutex_);
  frozen_ = true;
  frozen_at_ = Clock::now();
  state.phase = control_->activity().phase();
  states_[static_cast<std::size_t>(control_->rank())] = std::move(state);
  control_->activity().halt();
  if (communication_) communication_->halt();
}

bool Watchdog::all_answered() const {
  return std::all_of(states_.begin(), states_.end(), [](const auto& state) { return state.has_value(); });
}

bool Watchdog::ask() {
  const auto over = [this] {
    return yields_ || all_answered() || seconds_since(frozen_at_) > options_.answer_seconds;
  };
  while (!over()) {
    const auto asked_at = Clock::now();
    tell_all({WatchdogMessage::Kind::question, true, {}}, true);
    while (!over() && seconds_since(asked_at) < longest_interval) {
      if (!sleep(longest_interval - seconds_since(asked_at))) return false;
      receive();
    }
  }
  return true;
}

bool Watchdog::stand_by() {
  // One after the other, so that the first of them is heard by the rest.
  const double patience = options_.patience_seconds + 0.5 * control_->rank() / control_->size();
  while (seconds_since(frozen_at_) < patience) {
    if (!sleep(patience - seconds_since(frozen_at_))) return false;
    receive();
  }
  return true;
}

void Watchdog::tell_all(const WatchdogMessage& message, bool only_missing) {
  for (int rank = 0; rank < std::ssize(states_); ++rank) {
    if (rank == control_->rank() || (only_missing && states_[static_cast<std::size_t>(rank)])) continue;
    datagrams_.send(rank, message.encode());
    receive();  // before the answers of many ranks are too many for the socket
  }
}

std::string Watchdog::headline() const {
  const auto rank = static_cast<std::size_t>(control_->rank());
  const RankState& own = *states_[rank];
  const std::string who = fmt::format("rank {} (host {})", rank, hosts_[rank]),
                    where = to_text(own.position) + (own.phase.empty() ? "" : ", " + own.phase);
  if (!own.failure.empty()) return fmt::format("llama3d: error: {}: {}, {}", who, own.failure, where);
  if (!asks_)
    return fmt::format(
        "llama3d: error: {} was asked what it waits for, and the rank that asked did not end the job", who);
  return fmt::format("llama3d: error: no progress for {} s (`comm_timeout`): {} waits in {}, {}",
                     options_.limit, who, own.label, where);
}

void Watchdog::end(const std::string& report) {
  if (options_.end) {
    options_.end(report);
    return;
  }
  constexpr int status = static_cast<int>(ExitStatus::rank_lost);
  // Everything here may block: a full pipe, a communicator, MPI.
  try {
    std::thread([this, report] {
      write_log(report);
      // The end of the processes frees devices that take longer.
      abort_all(communicators_, abort_seconds);
      control_->abort(status);
    }).detach();
    std::this_thread::sleep_until(frozen_at_ + end_time);
  } catch (const std::system_error&) {
    write_log(report);
  }
  std::_Exit(status);
}

Watch::Watch(Watchdog* watchdog, Activity& communication, std::vector<Communicator*> communicators)
    : watchdog_(watchdog) {
  if (watchdog_) watchdog_->look_at(communication, std::move(communicators));
}

Watch::~Watch() {
  if (watchdog_) watchdog_->look_away();
}

}  // namespace llama3d
