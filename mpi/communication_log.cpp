#include "mpi/communication_log.hpp"

#include <algorithm>
#include <chrono>

namespace llama3d {
namespace {

/// One in so many of a frequent label is timed. Prime, so that no layer, block or kind of product is left out
/// where they take turns.
constexpr std::int64_t sampled_stride = 7;

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

bool CommunicationInterval::samples_next(Label label) const {
  if (!label.frequent) return true;
  const auto found = counts_.find(label);
  return found == counts_.end() || found->second.calls % sampled_stride == 0;
}

std::vector<OperationSpan> CommunicationInterval::spans(const TimeOrigin& origin) const {
  std::vector<OperationSpan> spans;
  spans.reserve(timed_.size());
  for (const Timed& timed : timed_) {
    if (timed.operation) {
      spans.push_back({timed.label, timed.operation->times(origin.event)});
      continue;
    }
    OperationTimes times = timed.times;
    times.begin -= origin.host_seconds;
    times.end -= origin.host_seconds;
    spans.push_back({timed.label, times});
  }
  return spans;
}

LabelRecords CommunicationInterval::records(const TimeOrigin& origin) const {
  LabelRecords records = counts_, timed;
  for (const auto& [label, times] : spans(origin))
    timed[label] += {.calls = 1, .seconds = times.end - times.begin, .exposed_seconds = times.exposed};
  for (const auto& [label, sum] : timed) {
    LabelRecord& record = records[label];
    const std::int64_t calls = label.frequent ? std::max(record.calls, sum.calls) : sum.calls;
    const double each_stands_for = static_cast<double>(calls) / static_cast<double>(sum.calls);
    record.seconds = sum.seconds * each_stands_for;
    record.exposed_seconds = sum.exposed_seconds * each_stands_for;
  }
  return records;
}

double CommunicationLog::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

LabelRecord CommunicationLog::record(Label label) const {
  const auto found = interval_.counts().find(label);
  return found == interval_.counts().end() ? LabelRecord{} : found->second;
}

}  // namespace llama3d
