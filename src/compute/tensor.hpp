#pragma once
// A typed, shaped view of memory on a device. It owns nothing.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/dtype.hpp"
#include "base/error.hpp"

namespace llama3d {

/// Up to three extents, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[static_cast<std::size_t>(axis)]; }
  /// Product of the extents; 1 for rank 0.
  std::int64_t elements() const;
  bool operator==(const Shape&) const = default;
  /// "4096 x 128".
  std::string to_string() const;

 private:
  std::array<std::int64_t, 3> extents_{1, 1, 1};
  int rank_ = 0;
};

/// A contiguous row-major view. Copies alias the same memory; constness is of the view, not of the elements.
/// A default-constructed tensor is empty: it stands for "none" where an operation takes an optional tensor.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape), empty_(false) {}

  explicit operator bool() const { return !empty_; }
  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t elements() const { return empty_ ? 0 : shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype_); }
  /// Extent of the first axis, and the product of all others.
  std::int64_t rows() const { return shape_[0]; }
  std::int64_t columns() const { return shape_[0] == 0 ? shape_[1] * shape_[2] : elements() / shape_[0]; }

  /// The elements; throws ContractViolation unless T is the dtype.
  template <class T>
  T* as() const {
    LLAMA3D_EXPECT(empty_ || dtype_of<T> == dtype_, "tensor holds {}", name_of(dtype_));
    return static_cast<T*>(data_);
  }
  /// Rows [begin, end) of the first axis.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// The same elements in another shape of equal size.
  Tensor reshape(Shape shape) const;
  /// All elements on one axis.
  Tensor flat() const { return reshape({elements()}); }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::fp32;
  Shape shape_;
  bool empty_ = true;
};

}  // namespace llama3d
