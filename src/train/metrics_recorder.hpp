#pragma once
// What a run writes into metrics.h5. Rank 0 has the file; the others only take part in gathering.

#include <deque>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/control_plane.hpp"
#include "io/metrics/metrics_file.hpp"
#include "train/engine.hpp"

namespace llama3d {

class MetricsRecorder {
 public:
  /// Rank 0 opens `path`; see MetricsFile for `resume_step`. A failure to write later does not stop the run:
  /// rows wait in memory, 64 MiB of them at most, and are written with the first that can be. `note` tells
  /// when that begins and when it ends. `may_write` is asked before a file is begun anew under a name that
  /// leads to another one, or to none: the name's folder may be another run's by then.
  MetricsRecorder(const std::filesystem::path& path, std::optional<std::int64_t> resume_step,
                  ControlPlane& control, std::function<void(const std::string&)> note,
                  std::function<bool()> may_write);

  template <class Value>
  void attribute(const std::string& name, const Value& value) {
    if (file_) guarded([&] { file_->set_run_attribute(name, value); });
  }
  void train(const TrainRow& row) { append(row); }
  void valid(const ValidRow& row) { append(row); }
  /// An event of now.
  void event(std::int64_t step, const std::string& kind, const std::string& text);
  /// Collective: every rank's phases and communication of this step.
  void ranks(std::int64_t step, const StepReport& report, double data_seconds, double step_seconds,
             std::size_t memory_bytes);
  /// Collective: every rank's timeline of this step.
  void timeline(std::int64_t step, const std::vector<TimelineSpan>& spans);
  /// While rows can't be written it waits: that it would work says nothing of them.
  void sync() {
    if (file_ && !failing_) guarded([&] { file_->sync(); });
  }
  /// At the end of the run: tries once more, syncs, and tells how many rows are lost.
  void finish();

 private:
  struct WaitingRows {
    const TableDescriptor* table;
    std::size_t count;
    std::string bytes;
  };

  template <class Row>
  void append(const Row& row) {
    append(table_of(row), &row, 1);
  }
  template <class Row>
  void append(const std::vector<Row>& rows) {
    if (!rows.empty()) append(table_of(rows.front()), rows.data(), rows.size());
  }
  void append(const TableDescriptor& table, const void* rows, std::size_t count);
  void write_waiting();
  void reopen();
  void guarded(const std::function<void()>& write);

  ControlPlane* control_;
  std::function<void(const std::string&)> note_;
  std::function<bool()> may_write_;
  std::filesystem::path path_;
  std::optional<MetricsFile> file_;
  std::deque<WaitingRows> waiting_;
  std::size_t waiting_bytes_ = 0, lost_rows_ = 0;
  bool failing_ = false;  ///< the last write failed
};

/// Nanoseconds since 1970.
std::int64_t unix_time_ns();

}  // namespace llama3d
