#include "compute/arena.hpp"

namespace llama3d {

Tensor Arena::take(DType dtype, Shape shape) {
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  const std::size_t begin = used_;
  used_ += (bytes + alignment - 1) / alignment * alignment;
  if (measuring()) return {nullptr, dtype, shape};
  LLAMA3D_EXPECT(used_ <= capacity_, "arena of {} bytes asked for {}", capacity_, used_);
  return {static_cast<std::byte*>(memory_.get()) + begin, dtype, shape};
}

}  // namespace llama3d
