#pragma once
// What a run writes into metrics.h5. Rank 0 has the file; the others only take part in gathering.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "io/metrics_file.hpp"
#include "mpi/control_plane.hpp"
#include "train/engine.hpp"

namespace llama3d {

class MetricsRecorder {
 public:
  /// Rank 0 opens `path`; see MetricsFile for `resume_step`. A failure to write later does not stop the run:
  /// what can't be written is left out. `note` tells when that begins and when it ends.
  MetricsRecorder(const std::filesystem::path& path, std::optional<std::int64_t> resume_step,
                  ControlPlane& control, std::function<void(const std::string&)> note);

  template <class Value>
  void attribute(const std::string& name, const Value& value) {
    guarded([&] { file_->set_run_attribute(name, value); });
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
    if (!failing_) guarded([&] { file_->sync(); });
  }

 private:
  template <class Row>
  void append(const Row& row) {
    guarded([&] { file_->append(row); });
  }
  void guarded(const std::function<void()>& write);

  ControlPlane* control_;
  std::function<void(const std::string&)> note_;
  std::optional<MetricsFile> file_;
  bool failing_ = false;  ///< the last write failed
};

/// Nanoseconds since 1970.
std::int64_t unix_time_ns();

}  // namespace llama3d
