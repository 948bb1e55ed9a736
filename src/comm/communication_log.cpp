#include "comm/communication_log.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

namespace llama3d {
namespace {

/// Whether the sample has the number-th operation: one in eight. Multiples of the golden ratio are spread
/// evenly and have no period, so that each layer, block and kind of GEMM gets its share, if over many
/// steps where a step has a Fibonacci number of operations.
bool sampled(std::uint64_t number) {
  constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // its fraction in 64 bits
  return number * golden_ratio < std::numeric_limits<std::uint64_t>::max() / 8;
}

/// Sums over operations that were timed.
struct TimedSum {
  std::int64_t operations = 0;
  double seconds = 0, exposed_seconds = 0;

  void add(const OperationTimes& times) {
    ++operations;
    seconds += times.end - times.begin;
    exposed_seconds += times.exposed;
  }
};

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
  std::map<Label, TimedSum> all, samples;
  for (const Timed& timed : timed_) {
    const OperationTimes times = times_of(timed, origin);
    all[timed.label].add(times);
    if (timed.in_sample) samples[timed.label].add(times);
  }
  LabelRecords records = counts_;
  for (const auto& [label, timed] : all) {
    LabelRecord& record = records[label];
    const auto sample = samples.find(label);
    const TimedSum& typical = sample == samples.end() ? timed : sample->second;
    const std::int64_t others =
        label.frequent ? std::max<std::int64_t>(0, record.calls - timed.operations) : 0;
    const double factor = static_cast<double>(others) / static_cast<double>(typical.operations);
    record.seconds = timed.seconds + factor * typical.seconds;
    record.exposed_seconds = timed.exposed_seconds + factor * typical.exposed_seconds;
  }
  return records;
}

OperationTiming CommunicationLog::start(Label label, std::int64_t bytes) {
  const bool first = !interval_.counts().contains(label);
  interval_.count(label, bytes);
  if (!label.frequent || time_all_) return {};
  const bool in_sample = std::exchange(next_sampled_, sampled(++number_));
  const bool times = first || in_sample;
  return {.times = times, .in_sample = in_sample && !first, .end = times || next_sampled_};
}

double CommunicationLog::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

LabelRecord CommunicationLog::record(Label label) const {
  const auto found = interval_.counts().find(label);
  return found == interval_.counts().end() ? LabelRecord{} : found->second;
}

}  // namespace llama3d
