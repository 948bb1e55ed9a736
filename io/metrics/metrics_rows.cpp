#include "io/metrics/metrics_rows.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace llama3d {
namespace {

template <class Member>
FieldDescriptor field(const char* name, std::size_t offset, const char* unit) {
  constexpr FieldType type = std::is_same_v<Member, std::int64_t> ? FieldType::int64
                             : std::is_same_v<Member, double>     ? FieldType::float64
                                                                  : FieldType::text;
  return {name, type, offset, sizeof(Member), unit};
}

// The name in the file is the member's name.
#define LLAMA3D_FIELD(row, member, unit) field<decltype(row::member)>(#member, offsetof(row, member), unit)

template <std::size_t size>
void copy_text(char (&target)[size], std::string_view text) {
  std::size_t length = std::min(text.size(), size);
  // Bytes 10xxxxxx continue a UTF-8 character: step back to the start of the one that is cut.
  if (length < text.size()) {
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
  }
  std::memcpy(target, text.data(), length);
}

}  // namespace

CommunicationRow make_communication(std::int64_t step, std::int64_t rank, std::string_view label) {
  CommunicationRow row;
  row.step = step;
  row.rank = rank;
  copy_text(row.label, label);
  return row;
}

TimelineRow make_timeline(std::int64_t step, std::int64_t rank, std::string_view lane,
                          std::string_view name) {
  TimelineRow row;
  row.step = step;
  row.rank = rank;
  copy_text(row.lane, lane);
  copy_text(row.name, name);
  return row;
}

EventRow make_event(std::int64_t step, std::int64_t time_ns, std::string_view kind, std::string_view text) {
  EventRow row;
  row.step = step;
  row.time_ns = time_ns;
  copy_text(row.kind, kind);
  copy_text(row.text, text);
  return row;
}

const TableDescriptor& table_of(const TrainRow&) {
  static const TableDescriptor table{
      "train",
      sizeof(TrainRow),
      512,
      {LLAMA3D_FIELD(TrainRow, step, ""), LLAMA3D_FIELD(TrainRow, time_ns, "ns since 1970-01-01 UTC"),
       LLAMA3D_FIELD(TrainRow, tokens, "tokens"), LLAMA3D_FIELD(TrainRow, loss, "nat/token"),
       LLAMA3D_FIELD(TrainRow, grad_norm, ""), LLAMA3D_FIELD(TrainRow, learning_rate, ""),
       LLAMA3D_FIELD(TrainRow, step_seconds, "s"), LLAMA3D_FIELD(TrainRow, tokens_per_second, "tokens/s"),
       LLAMA3D_FIELD(TrainRow, tokens_per_second_per_gpu, "tokens/s"), LLAMA3D_FIELD(TrainRow, mfu, "1"),
       LLAMA3D_FIELD(TrainRow, peak_memory_bytes, "bytes"), LLAMA3D_FIELD(TrainRow, skipped, "")}};
  return table;
}

const TableDescriptor& table_of(const ValidRow&) {
  static const TableDescriptor table{
      "valid",
      sizeof(ValidRow),
      128,
      {LLAMA3D_FIELD(ValidRow, step, ""), LLAMA3D_FIELD(ValidRow, loss, "nat/token"),
       LLAMA3D_FIELD(ValidRow, perplexity, "")}};
  return table;
}

const TableDescriptor& table_of(const RankRow&) {
  static const TableDescriptor table{
      "ranks",
      sizeof(RankRow),
      512,
      {LLAMA3D_FIELD(RankRow, step, ""), LLAMA3D_FIELD(RankRow, rank, ""),
       LLAMA3D_FIELD(RankRow, compute_seconds, "s"), LLAMA3D_FIELD(RankRow, tp_seconds, "s"),
       LLAMA3D_FIELD(RankRow, pp_seconds, "s"), LLAMA3D_FIELD(RankRow, dp_seconds, "s"),
       LLAMA3D_FIELD(RankRow, optimizer_seconds, "s"), LLAMA3D_FIELD(RankRow, data_seconds, "s"),
       LLAMA3D_FIELD(RankRow, idle_seconds, "s"), LLAMA3D_FIELD(RankRow, memory_bytes, "bytes")}};
  return table;
}

const TableDescriptor& table_of(const CommunicationRow&) {
  static const TableDescriptor table{
      "communication",
      sizeof(CommunicationRow),
      2048,
      {LLAMA3D_FIELD(CommunicationRow, step, ""), LLAMA3D_FIELD(CommunicationRow, rank, ""),
       LLAMA3D_FIELD(CommunicationRow, label, ""), LLAMA3D_FIELD(CommunicationRow, calls, ""),
       LLAMA3D_FIELD(CommunicationRow, bytes, "bytes"), LLAMA3D_FIELD(CommunicationRow, seconds, "s"),
       LLAMA3D_FIELD(CommunicationRow, exposed_seconds, "s")},
      false};
  return table;
}

const TableDescriptor& table_of(const TimelineRow&) {
  static const TableDescriptor table{
      "timeline",
      sizeof(TimelineRow),
      2048,
      {LLAMA3D_FIELD(TimelineRow, step, ""), LLAMA3D_FIELD(TimelineRow, rank, ""),
       LLAMA3D_FIELD(TimelineRow, lane, ""), LLAMA3D_FIELD(TimelineRow, name, ""),
       LLAMA3D_FIELD(TimelineRow, micro_batch, ""), LLAMA3D_FIELD(TimelineRow, begin_seconds, "s"),
       LLAMA3D_FIELD(TimelineRow, end_seconds, "s")},
      false};
  return table;
}

const TableDescriptor& table_of(const EventRow&) {
  static const TableDescriptor table{
      "events",
      sizeof(EventRow),
      64,
      {LLAMA3D_FIELD(EventRow, step, ""), LLAMA3D_FIELD(EventRow, time_ns, "ns since 1970-01-01 UTC"),
       LLAMA3D_FIELD(EventRow, kind, ""), LLAMA3D_FIELD(EventRow, text, "")}};
  return table;
}

std::vector<TableDescriptor> metrics_tables() {
  return {table_of(TrainRow{}),         table_of(ValidRow{}),    table_of(RankRow{}),
          table_of(CommunicationRow{}), table_of(TimelineRow{}), table_of(EventRow{})};
}

}  // namespace llama3d
