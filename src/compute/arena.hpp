#pragma once
// One block of device memory, handed out front to back. Every tensor of a run is taken from an arena by the
// same code that, over a measuring arena, tells the memory plan how much that will be.

#include "compute/device.hpp"

namespace llama3d {

class Arena {
 public:
  /// Tensors start at multiples of this many bytes.
  static constexpr std::size_t alignment = 256;

  /// Measures: hands out tensors without memory and counts their bytes.
  Arena() = default;
  /// Hands out the `bytes` of `memory`; asking for more is a ContractViolation.
  Arena(DeviceMemory memory, std::size_t bytes) : memory_(std::move(memory)), capacity_(bytes) {}

  Tensor take(DType dtype, Shape shape);
  /// Bytes handed out so far, paddings included.
  std::size_t used() const { return used_; }
  std::size_t capacity() const { return capacity_; }
  bool measuring() const { return !memory_; }
  /// All of the memory as (bytes / 4) int32.
  Tensor whole() const { return {memory_.get(), DType::int32, {static_cast<std::int64_t>(capacity_ / 4)}}; }

 private:
  DeviceMemory memory_{nullptr, [](void*) {}};
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
};

}  // namespace llama3d
