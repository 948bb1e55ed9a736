#include "mpi/communication_log.hpp"

#include <chrono>
#include <limits>

namespace llama3d {
namespace {

constexpr int sampled_of = 8;

/// Whether the sample has the number-th operation. Multiples of the golden ratio are spread evenly and have
/// no period, so that no layer, block or kind of product is left out or preferred for long.
bool sampled(std::uint64_t number) {
  constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // its fraction in 64 bits
  return number * golden_ratio < std::numeric_limits<std::uint64_t>::max() / sampled_of;
}

}  // namespace

LabelRecord& LabelRecord::operator+=(const LabelRecord& other) {
  calls += other.calls;
  bytes += other.bytes;
  seconds += other.seconds;
  exposed_seconds += other.exposed_seconds;
  return *this;
}

void CommunicationInterval::count(Label label, std::int64_t bytes) {
  counts_[label] += {.calls = 1, .bytes = bytes};
}

OperationTimes CommunicationInterval::times_of(const Timed& timed, const TimeOrigin& origin) {
  if (timed.operation) return timed.operation->times(origin.event);
  OperationTimes times = timed.times;
  times.begin -= origin.host_seconds;
  times.end -= origin.host_seconds;
  return times;
}

std::vector<OperationSpan> CommunicationInterval::spans(const TimeOrigin& origin) const {
  std::vector<OperationSpan> spans;
  spans.reserve(timed_.size());
  for (const Timed& timed : timed_) spans.push_back({timed.label, times_of(timed, origin)});
  return spans;
}

LabelRecords CommunicationInterval::records(const TimeOrigin& origin) const {
  LabelRecords records = counts_;
  for (const Timed& timed : timed_) {
    const OperationTimes times = times_of(timed, origin);
    records[timed.label] += {.seconds = timed.stands_for * (times.end - times.begin),
                             .exposed_seconds = timed.stands_for * times.exposed};
  }
  return records;
}

OperationTiming CommunicationLog::count(Label label, std::int64_t bytes) {
  const bool first = !interval_.counts().contains(label);
  interval_.count(label, bytes);
  if (!label.frequent || time_all_) return {};
  const bool drawn = std::exchange(next_sampled_, sampled(++drawn_));
  const int stands_for = first ? 1 : drawn ? sampled_of : 0;
  return {stands_for, stands_for > 0 || next_sampled_};
}

double CommunicationLog::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

LabelRecord CommunicationLog::record(Label label) const {
  const auto found = interval_.counts().find(label);
  return found == interval_.counts().end() ? LabelRecord{} : found->second;
}

}  // namespace llama3d
