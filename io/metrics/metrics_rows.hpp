#pragma once
// The rows of metrics.h5. Field names and order are the file's.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

enum class FieldType { int64, float64, text };

/// One field of a row: bytes [offset, offset + bytes) of the struct. Text is UTF-8 padded with zeros.
struct FieldDescriptor {
  std::string name;
  FieldType type;
  std::size_t offset, bytes;
  std::string unit;  ///< "s", "tokens", ...; empty for a plain number or text
};

struct TableDescriptor {
  std::string name;  ///< "train"
  std::size_t row_bytes;
  std::size_t chunk_rows;
  std::vector<FieldDescriptor> fields;  ///< the first is int64 "step", not negative
  bool in_every_file = true;            ///< a file without it is damaged; otherwise it may be added
};

/// One a step.
struct TrainRow {
  std::int64_t step = 0;
  std::int64_t time_ns = 0;  ///< Unix time of the step's end
  std::int64_t tokens = 0;   ///< input tokens since the start of training
  double loss = 0;           ///< mean over the global batch's valid tokens
  double grad_norm = 0;      ///< before clipping
  double learning_rate = 0;
  double step_seconds = 0;  ///< wall time of the whole step
  double tokens_per_second = 0;
  double tokens_per_second_per_gpu = 0;
  double mfu = 0;  ///< NaN when the device's peak is unknown
  std::int64_t peak_memory_bytes = 0;
  std::int64_t skipped = 0;  ///< 1 when the update was skipped
};

struct ValidRow {
  std::int64_t step = 0;
  double loss = 0;
  double perplexity = 0;
};

/// One a rank and reported step. On a GPU compute, tp and idle seconds rest on CommunicationRow's estimates.
struct RankRow {
  std::int64_t step = 0;
  std::int64_t rank = 0;
  double compute_seconds = 0, tp_seconds = 0, pp_seconds = 0, dp_seconds = 0;
  double optimizer_seconds = 0, data_seconds = 0, idle_seconds = 0;
  std::int64_t memory_bytes = 0;
};

/// One a rank, reported step and label of a communication. Of some labels a GPU times a sample: their seconds
/// are estimates.
struct CommunicationRow {
  std::int64_t step = 0;
  std::int64_t rank = 0;
  char label[48] = {};
  std::int64_t calls = 0;
  std::int64_t bytes = 0;      ///< that the rank sends
  double seconds = 0;          ///< under way; operations may overlap
  double exposed_seconds = 0;  ///< that computing stood still for it
};

/// One a rank and span of a profiled step.
struct TimelineRow {
  std::int64_t step = 0;
  std::int64_t rank = 0;
  char lane[16] = {};  ///< compute, waits, or a communicator: tp, dp, world, pp.activation, pp.gradient
  char name[48] = {};  ///< of the computation or the label
  std::int64_t micro_batch = -1;              ///< or -1
  double begin_seconds = 0, end_seconds = 0;  ///< since the rank's begin of the step
};

TimelineRow make_timeline(std::int64_t step, std::int64_t rank, std::string_view lane, std::string_view name);
CommunicationRow make_communication(std::int64_t step, std::int64_t rank, std::string_view label);

struct EventRow {
  std::int64_t step = 0;
  std::int64_t time_ns = 0;
  char kind[16] = {};   ///< checkpoint, resume, signal, skip, restart
  char text[256] = {};  ///< cut, never inside a character
};

EventRow make_event(std::int64_t step, std::int64_t time_ns, std::string_view kind, std::string_view text);

const TableDescriptor& table_of(const TrainRow&);
const TableDescriptor& table_of(const ValidRow&);
const TableDescriptor& table_of(const RankRow&);
const TableDescriptor& table_of(const CommunicationRow&);
const TableDescriptor& table_of(const TimelineRow&);
const TableDescriptor& table_of(const EventRow&);
/// All tables of a metrics file.
std::vector<TableDescriptor> metrics_tables();

}  // namespace llama3d
