#include "mpi/communication_log.hpp"

#include <chrono>

namespace llama3d {

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
  LabelRecords records = counts_;
  for (const auto& [label, times] : spans(origin))
    records[label] += {.seconds = times.end - times.begin, .exposed_seconds = times.exposed};
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
