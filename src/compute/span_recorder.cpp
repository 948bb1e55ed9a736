#include "compute/span_recorder.hpp"

#include <utility>

namespace llama3d {

void SpanRecorder::begin(std::string name, std::int64_t micro_batch, Stream& stream) {
  recorded_.push_back({std::move(name), micro_batch, device_->create_event(), device_->create_event()});
  stream.record(*recorded_.back().begin);
}

void SpanRecorder::end(Stream& stream) {
  stream.record(*recorded_.back().end);
}

std::vector<SpanRecorder::Span> SpanRecorder::spans(const Event& origin) const {
  std::vector<Span> spans;
  for (const Recorded& r : recorded_)
    spans.push_back({r.name, r.micro_batch, device_->elapsed_seconds(origin, *r.begin),
                     device_->elapsed_seconds(origin, *r.end)});
  return spans;
}

}  // namespace llama3d
