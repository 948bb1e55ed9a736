#include "compute/upload_ring.hpp"

namespace llama3d {

UploadRing::UploadRing(Device& device, std::size_t bytes, int buffers) : device_(&device) {
  for (int i = 0; i < buffers; ++i) buffers_.push_back({device.allocate_host(bytes), device.create_event()});
}

void* UploadRing::next() {
  current_ = (current_ + 1) % buffers_.size();
  Buffer& buffer = buffers_[current_];
  buffer.uploaded->synchronize();
  return buffer.memory.get();
}

void UploadRing::upload(const Tensor& destination, Stream& stream) {
  Buffer& buffer = buffers_[current_];
  device_->upload(destination, buffer.memory.get(), stream);
  stream.record(*buffer.uploaded);
}

}  // namespace llama3d
