#pragma once
// When pieces of a stream's work ran, for timelines.

#include <memory>
#include <string>
#include <vector>

#include "compute/device.hpp"

namespace llama3d {

class SpanRecorder {
 public:
  struct Span {
    std::string name;
    std::int64_t micro_batch = -1;  ///< or -1: of none in particular
    double begin = 0, end = 0;      ///< seconds after the origin
  };

  /// The device must outlive the recorder.
  explicit SpanRecorder(Device& device) : device_(&device) {}

  /// The work given to the stream from here to `end` is one span. Spans do not nest.
  void begin(std::string name, std::int64_t micro_batch, Stream& stream);
  void end(Stream& stream);
  /// In order. Only when the device has passed them all.
  std::vector<Span> spans(const Event& origin) const;

 private:
  struct Recorded {
    std::string name;
    std::int64_t micro_batch;
    std::unique_ptr<Event> begin, end;
  };
  Device* device_;
  std::vector<Recorded> recorded_;
};

}  // namespace llama3d
