#pragma once
// What communication moved and how long it took, by label.

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "comm/activity.hpp"
#include "comm/label.hpp"
#include "compute/device.hpp"

namespace llama3d {

/// What one label did on this rank.
struct LabelRecord {
  std::int64_t calls = 0;
  /// Bytes this rank sends, by the ring algorithms' minimum for a group of n: all_gather (n-1)/n of the
  /// output, reduce_scatter (n-1)/n of the input, all_reduce twice that of the tensor, broadcast (n-1)/n of
  /// the tensor, a transfer the bytes sent.
  std::int64_t bytes = 0;
  double seconds = 0;          ///< from when operations could begin to their end; may overlap
  double exposed_seconds = 0;  ///< that computing stood still for them

  LabelRecord& operator+=(const LabelRecord& other);
};
using LabelRecords = std::map<Label, LabelRecord>;

/// One operation for a timeline.
struct OperationSpan {
  Label label;
  OperationTimes times;
};

/// The origins that the times of a stretch of work count from: one moment, as the device and the host know
/// it.
struct TimeOrigin {
  const Event& event;
  double host_seconds = 0;  ///< by CommunicationLog::now
};

/// The communication of a stretch of work: operations started in it are counted, those waited for in it
/// timed, of frequent labels a sample if a device carries them out.
class CommunicationInterval {
 public:
  void count(Label label, std::int64_t bytes);
  /// An operation that the host carried out. Seconds by CommunicationLog::now.
  void time(Label label, const OperationTimes& times) { timed_.push_back({label, false, times, nullptr}); }
  /// One that a device carries out and times and that has been waited for.
  void time(Label label, bool in_sample, std::shared_ptr<const DeviceOperation> operation) {
    timed_.push_back({label, in_sample, {}, std::move(operation)});
  }

  /// Every operation waited for and timed. Only when the device has passed them all.
  std::vector<OperationSpan> spans(const TimeOrigin& origin) const;
  /// Counts and times of all labels, operations of frequent ones that were not timed taken to be as long as
  /// the sample's mean: that of a few is some percent low where one in many is far longer. Likewise.
  LabelRecords records(const TimeOrigin& origin) const;
  /// Counts alone.
  const LabelRecords& counts() const { return counts_; }

 private:
  struct Timed {
    Label label;
    bool in_sample;
    OperationTimes times;
    std::shared_ptr<const DeviceOperation> operation;  ///< or none
  };
  static OperationTimes times_of(const Timed& timed, const TimeOrigin& origin);
  LabelRecords counts_;
  std::vector<Timed> timed_;
};

/// What a device is to time of an operation.
struct OperationTiming {
  bool times = true;       ///< what DeviceOperation::times tells
  bool in_sample = false;  ///< these times tell of others of its label too
  bool end = true;         ///< its end at least, since the next one, if that is timed, cannot begin before
};

/// Shared by the communicators of a rank. What the rank is doing right now is here too.
class CommunicationLog {
 public:
  /// Seconds of the host's clock that only goes forward.
  static double now();

  Activity& activity() { return activity_; }
  const Activity& activity() const { return activity_; }
  CommunicationInterval& interval() { return interval_; }
  /// What was recorded since the last call; a new interval begins.
  CommunicationInterval end_interval() { return std::exchange(interval_, CommunicationInterval()); }
  /// Counts an operation that starts and tells what of it a device is to time: all, but of frequent labels,
  /// after the first of each in an interval, only about one in eight of them together, and the ends before
  /// those. A first may do without: it seldom finds others in its queue.
  [[nodiscard]] OperationTiming start(Label label, std::int64_t bytes);
  /// From here on every one is timed, or again a sample.
  void time_all(bool yes) { time_all_ = yes; }
  /// Counts of the interval so far.
  LabelRecord record(Label label) const;

 private:
  Activity activity_;
  CommunicationInterval interval_;
  bool time_all_ = false;
  std::uint64_t number_ = 0;  ///< of the next operation with a frequent label
  bool next_sampled_ = false;
};

}  // namespace llama3d
