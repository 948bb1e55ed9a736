#pragma once
// All schedules of small pipelines.

#include <string>
#include <vector>

#include "base/error.hpp"
#include "pipeline/schedule.hpp"

namespace llama3d::test {

inline constexpr ScheduleKind kAllKinds[] = {ScheduleKind::gpipe, ScheduleKind::one_f_one_b,
                                             ScheduleKind::interleaved, ScheduleKind::zero_bubble};

inline bool fits(ScheduleKind kind, const PipelineShape& shape) {
  if (kind != ScheduleKind::interleaved) return shape.chunks == 1;
  return shape.stages > 1 && shape.chunks > 1 && shape.micro_batches % shape.stages == 0;
}

/// Every kind that fits 1 to 8 stages, 1 to 4 chunks and 1 to 16 micro-batches.
inline std::vector<Schedule> every_schedule(ReceiveStart receives = ReceiveStart::when_needed) {
  std::vector<Schedule> schedules;
  for (const ScheduleKind kind : kAllKinds) {
    for (int stages = 1; stages <= 8; ++stages) {
      for (int chunks = 1; chunks <= 4; ++chunks) {
        for (int micro_batches = 1; micro_batches <= 16; ++micro_batches) {
          const PipelineShape shape{stages, chunks, micro_batches};
          if (fits(kind, shape)) schedules.push_back(make_schedule(kind, shape, receives));
        }
      }
    }
  }
  return schedules;
}

inline std::string describe(const Schedule& schedule) {
  return fmt::format("{} with {} stages, {} chunks, {} micro-batches", name_of(schedule.kind),
                     schedule.shape.stages, schedule.shape.chunks, schedule.shape.micro_batches);
}

}  // namespace llama3d::test
