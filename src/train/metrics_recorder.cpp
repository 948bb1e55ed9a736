#include "train/metrics_recorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// Bytes of all ranks' timelines of a step that every rank can hold for a moment.
constexpr std::int64_t largest_timeline = std::int64_t{256} << 20;

constexpr std::size_t most_waiting_bytes = std::size_t{64} << 20;

CommunicationRow communication_row(std::int64_t step, std::int64_t rank, Label label,
                                   const LabelRecord& record) {
  CommunicationRow row = make_communication(step, rank, label.name);
  row.calls = record.calls;
  row.bytes = record.bytes;
  row.seconds = record.seconds;
  row.exposed_seconds = record.exposed_seconds;
  return row;
}

template <class Row>
std::string bytes_of(const Row& row) {
  return {reinterpret_cast<const char*>(&row), sizeof(Row)};
}

template <class Row>
void append_rows(std::string_view bytes, std::vector<Row>& rows) {
  const std::size_t before = rows.size();
  rows.resize(before + bytes.size() / sizeof(Row));
  if (!bytes.empty()) std::memcpy(&rows[before], bytes.data(), bytes.size());
}

}  // namespace

std::int64_t unix_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

MetricsRecorder::MetricsRecorder(const std::filesystem::path& path, std::optional<std::int64_t> resume_step,
                                 ControlPlane& control, std::function<void(const std::string&)> note,
                                 std::function<bool()> may_write)
    : control_(&control), note_(std::move(note)), may_write_(std::move(may_write)), path_(path) {
  if (control.rank() != 0) return;
  file_.emplace(path, resume_step);
  if (!file_->set_aside().empty())
    note_(fmt::format("{} is now {} ({})", path.string(), file_->set_aside().string(),
                      file_->set_aside_reason()));
}

void MetricsRecorder::guarded(const std::function<void()>& write) {
  try {
    write();
    if (std::exchange(failing_, false)) note_("metrics are written again");
  } catch (const std::exception& e) {
    if (!std::exchange(failing_, true))
      note_(fmt::format("warning: metrics wait in memory until they can be written again: {}", e.what()));
  }
}

void MetricsRecorder::append(const TableDescriptor& table, const void* rows, std::size_t count) {
  if (!file_) return;
  waiting_.push_back({&table, count, {static_cast<const char*>(rows), count * table.row_bytes}});
  waiting_bytes_ += waiting_.back().bytes.size();
  for (; waiting_bytes_ > most_waiting_bytes; waiting_.pop_front()) {
    waiting_bytes_ -= waiting_.front().bytes.size();
    lost_rows_ += waiting_.front().count;
  }
  guarded([&] { write_waiting(); });
}

void MetricsRecorder::write_waiting() {
  if (file_->broken() || !file_->in_place()) reopen();
  for (; !waiting_.empty(); waiting_.pop_front()) {
    const WaitingRows& rows = waiting_.front();
    file_->append_rows(*rows.table, rows.bytes.data(), rows.count);
    waiting_bytes_ -= rows.bytes.size();
  }
}

void MetricsRecorder::reopen() {
  const bool in_place = file_->in_place();
  if (!may_write_())
    throw Error(ExitStatus::failure, fmt::format("{} is not this run's to write any more", path_.string()));
  file_->reopen();
  if (!in_place)
    note_(fmt::format("warning: {} was removed or renamed while the run writes it: begun anew",
                      path_.string()));
  if (!file_->set_aside().empty())
    note_(fmt::format("warning: {} is now {} ({})", path_.string(), file_->set_aside().string(),
                      file_->set_aside_reason()));
}

void MetricsRecorder::finish() {
  if (!file_) return;
  if (!waiting_.empty()) guarded([&] { write_waiting(); });
  sync();
  for (; !waiting_.empty(); waiting_.pop_front()) lost_rows_ += waiting_.front().count;
  if (lost_rows_ > 0)
    note_(fmt::format("warning: {} rows of metrics could not be written to {}", lost_rows_, path_.string()));
}

void MetricsRecorder::event(std::int64_t step, const std::string& kind, const std::string& text) {
  append(make_event(step, unix_time_ns(), kind, text));
}

void MetricsRecorder::ranks(std::int64_t step, const StepReport& report, double data_seconds,
                            double step_seconds, std::size_t memory_bytes) {
  const PhaseSeconds& seconds = report.seconds;
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
  // One exchange for both tables: the rank's row, then one for each of its labels.
  std::string mine = bytes_of(row);
  for (const auto& [label, record] : report.communication)
    mine += bytes_of(communication_row(step, row.rank, label, record));
  std::vector<RankRow> ranks;
  std::vector<CommunicationRow> communication;
  for (const std::string& rows : control_->all_gather(mine)) {
    append_rows(std::string_view(rows).substr(0, sizeof(RankRow)), ranks);
    append_rows(std::string_view(rows).substr(sizeof(RankRow)), communication);
  }
  append(ranks);
  append(communication);
}

void MetricsRecorder::timeline(std::int64_t step, const std::vector<TimelineSpan>& spans) {
  std::string mine;
  for (const TimelineSpan& span : spans) {
    TimelineRow row = make_timeline(step, control_->rank(), span.lane, span.name);
    row.micro_batch = span.micro_batch;
    row.begin_seconds = span.begin;
    row.end_seconds = span.end;
    mine += bytes_of(row);
  }
  const auto most = control_->all_max(static_cast<std::int64_t>(mine.size()));
  if (most * control_->size() > largest_timeline) {
    if (file_)
      note_(fmt::format("step {}: its timeline is too large to be gathered; the profiler has it", step));
    return;
  }
  std::vector<TimelineRow> timeline;
  for (const std::string& rows : control_->all_gather(mine)) append_rows(rows, timeline);
  append(timeline);
}

}  // namespace llama3d
