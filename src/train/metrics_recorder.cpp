#include "train/metrics_recorder.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace llama3d {

std::int64_t unix_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

MetricsRecorder::MetricsRecorder(const std::filesystem::path& path, std::optional<std::int64_t> resume_step,
                                 ControlPlane& control, std::function<void(const std::string&)> note)
    : control_(&control), note_(std::move(note)) {
  if (control.rank() != 0) return;
  file_.emplace(path, resume_step);
  if (!file_->set_aside().empty())
    note_(fmt::format("{} is now {} ({})", path.string(), file_->set_aside().string(),
                      file_->set_aside_reason()));
}

void MetricsRecorder::guarded(const std::function<void()>& write) {
  if (!file_ || failed_) return;
  try {
    write();
  } catch (const std::exception& e) {
    failed_ = true;
    note_(fmt::format("warning: metrics are not written any more: {}", e.what()));
  }
}

void MetricsRecorder::event(std::int64_t step, const std::string& kind, const std::string& text) {
  append(make_event(step, unix_time_ns(), kind, text));
}

void MetricsRecorder::ranks(std::int64_t step, const PhaseSeconds& seconds, double data_seconds,
                            double step_seconds, std::size_t memory_bytes) {
  RankRow row;
  row.step = step;
  row.rank = control_->rank();
  row.compute_seconds = seconds.compute;
  row.tp_seconds = seconds.tp;
  row.pp_seconds = seconds.pp;
  row.dp_seconds = seconds.dp;
  row.optimizer_seconds = seconds.optimizer;
  row.data_seconds = data_seconds;
  row.idle_seconds = std::max(0.0, step_seconds - seconds.compute - seconds.tp - seconds.pp - seconds.dp -
                                       seconds.optimizer - data_seconds);
  row.memory_bytes = static_cast<std::int64_t>(memory_bytes);
  const auto all = control_->all_gather(std::string(reinterpret_cast<const char*>(&row), sizeof(row)));
  std::vector<RankRow> rows(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) std::memcpy(&rows[i], all[i].data(), sizeof(RankRow));
  append(rows);
}

}  // namespace llama3d
