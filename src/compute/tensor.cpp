#include "compute/tensor.hpp"

namespace llama3d {

Shape::Shape(std::initializer_list<std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  LLAMA3D_EXPECT(extents.size() <= extents_.size(), "shape of {} axes", extents.size());
  std::size_t axis = 0;
  for (const auto extent : extents) {
    LLAMA3D_EXPECT(extent >= 0, "extent {} of axis {}", extent, axis);
    extents_[axis++] = extent;
  }
}

std::int64_t Shape::elements() const {
  return extents_[0] * extents_[1] * extents_[2];
}

std::string Shape::to_string() const {
  std::string text;
  for (int axis = 0; axis < rank_; ++axis) text += fmt::format("{}{}", axis ? " x " : "", (*this)[axis]);
  return text.empty() ? "scalar" : text;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  LLAMA3D_EXPECT(!empty_ && 0 <= begin && begin <= end && end <= rows(), "rows [{}, {}) of {}", begin, end,
                 shape_.to_string());
  const std::size_t row_bytes = static_cast<std::size_t>(columns()) * size_of(dtype_);
  Shape shape = shape_.rank() == 3   ? Shape{end - begin, shape_[1], shape_[2]}
                : shape_.rank() == 2 ? Shape{end - begin, shape_[1]}
                                     : Shape{end - begin};
  // A measuring arena hands out tensors without memory: their slices have none either.
  void* data = data_ ? static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin) * row_bytes : nullptr;
  return {data, dtype_, shape};
}

Tensor Tensor::reshape(Shape shape) const {
  if (empty_) return {};
  LLAMA3D_EXPECT(shape.elements() == elements(), "{} as {}", shape_.to_string(), shape.to_string());
  return {data_, dtype_, shape};
}

}  // namespace llama3d
