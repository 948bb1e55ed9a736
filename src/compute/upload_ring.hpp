#pragma once
// Host buffers for uploads that follow each other without the host waiting for the device.

#include <vector>

#include "compute/device.hpp"

namespace llama3d {

class UploadRing {
 public:
  /// `buffers` of `bytes` each. The device must outlive the ring.
  UploadRing(Device& device, std::size_t bytes, int buffers);

  /// The buffer used longest ago. Blocks only while an upload from it is under way, that is when the host is
  /// as many uploads ahead as there are buffers.
  void* next();
  /// Queues the copy of the buffer that the last next() gave.
  void upload(const Tensor& destination, Stream& stream);

 private:
  struct Buffer {
    DeviceMemory memory;
    std::unique_ptr<Event> uploaded;
  };
  Device* device_;
  std::vector<Buffer> buffers_;
  std::size_t current_ = 0;
};

}  // namespace llama3d
