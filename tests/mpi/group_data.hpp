#pragma once
// Data for tests of communicators: what each rank contributes, and what a serial program makes of it.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/dtype.hpp"
#include "compute/device.hpp"
#include "compute/tensor.hpp"
#include "support/immediate_stream.hpp"
#include "support/test_device.hpp"

namespace llama3d::test {

/// Where tensors of communicators' tests live and in which order: host memory, or a GPU's.
struct TestPlace {
  std::unique_ptr<Device> gpu;  ///< or none
  std::unique_ptr<Stream> stream;

  /// The first call says which rank of its node, of how many, this is.
  static TestPlace& get(int node_rank = 0, int node_size = 1) {
    static TestPlace place = [node_rank, node_size] {
      TestPlace made;
      if (gpu_required()) made.gpu = make_gpu(node_rank, node_size);
      made.stream =
          made.gpu ? made.gpu->create_stream(StreamPriority::normal) : std::make_unique<ImmediateStream>();
      return made;
    }();
    return place;
  }
};

/// A tensor with its memory, in any of the four types. On a GPU its elements are brought to where they are
/// used.
class HostTensor {
 public:
  /// Filled with a value that no test computes, so that an element left out is seen.
  HostTensor(DType dtype, std::int64_t elements)
      : dtype_(dtype), elements_(elements), bytes_(static_cast<std::size_t>(elements) * size_of(dtype) + 1) {
    for (std::int64_t i = 0; i < elements; ++i) set(i, poison);
  }

  HostTensor(const HostTensor& other)
      : dtype_(other.dtype_), elements_(other.elements_), bytes_(other.bytes()) {}
  HostTensor(HostTensor&&) = default;

  static constexpr double poison = 120;

  /// For communication, which may change the elements.
  Tensor tensor() {
    if (!TestPlace::get().gpu) return host_tensor();
    return device_tensor();
  }
  std::int64_t elements() const { return elements_; }
  void set(std::int64_t i, double value) {
    fetch();
    device_has_them_ = false;
    void* at = bytes_.data() + static_cast<std::size_t>(i) * size_of(dtype_);
    switch (dtype_) {
      case DType::fp32: *static_cast<float*>(at) = static_cast<float>(value); break;
      case DType::bf16: *static_cast<bf16*>(at) = bf16(static_cast<float>(value)); break;
      case DType::fp64: *static_cast<double*>(at) = value; break;
      case DType::int32: *static_cast<std::int32_t*>(at) = static_cast<std::int32_t>(value); break;
    }
  }
  double get(std::int64_t i) const {
    fetch();
    const void* at = bytes_.data() + static_cast<std::size_t>(i) * size_of(dtype_);
    switch (dtype_) {
      case DType::fp32: return *static_cast<const float*>(at);
      case DType::bf16: return static_cast<float>(*static_cast<const bf16*>(at));
      case DType::fp64: return *static_cast<const double*>(at);
      case DType::int32: return *static_cast<const std::int32_t*>(at);
    }
    return 0;
  }
  bool same_bits(const HostTensor& other) const { return bytes() == other.bytes(); }
  const std::vector<unsigned char>& bytes() const {
    fetch();
    return bytes_;
  }

  /// Elements in [begin, begin + count) that are not expected(0), expected(1), ...
  template <class Expected>
  std::int64_t mismatches(std::int64_t begin, std::int64_t count, Expected&& expected) const {
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < count; ++i) wrong += !(get(begin + i) == expected(i));
    return wrong;
  }
  template <class Expected>
  std::int64_t mismatches(Expected&& expected) const {
    return mismatches(0, elements_, expected);
  }

 private:
  Tensor host_tensor() const { return {bytes_.data(), dtype_, {elements_}}; }

  Tensor device_tensor() {
    const TestPlace& place = TestPlace::get();
    if (!device_) device_ = std::shared_ptr<void>(place.gpu->allocate(bytes_.size()));
    const Tensor tensor(device_.get(), dtype_, {elements_});
    if (!device_has_them_) {
      place.gpu->upload(tensor, bytes_.data(), *place.stream);
      place.stream->synchronize();
    }
    device_has_them_ = fetch_ = true;
    return tensor;
  }
  /// Brings back what communication may have changed.
  void fetch() const {
    if (!fetch_) return;
    const TestPlace& place = TestPlace::get();
    place.gpu->download(bytes_.data(), {device_.get(), dtype_, {elements_}}, *place.stream);
    place.stream->synchronize();
    fetch_ = false;
  }

  DType dtype_;
  std::int64_t elements_;
  mutable std::vector<unsigned char> bytes_;
  std::shared_ptr<void> device_;  ///< on a GPU
  bool device_has_them_ = false;  ///< and the host's may be older
  mutable bool fetch_ = false;    ///< the host's may be older
};

/// What a world rank contributes at an index: a whole number of [-8, 8], so that sums over up to 32 ranks are
/// exact in every type (bf16 holds whole numbers up to 256) and any order of additions gives the same.
inline double contribution(int world_rank, std::int64_t i) {
  return static_cast<double>((std::int64_t{world_rank} * 31 + i * 7 + i / 13) % 17 - 8);
}

inline double serial_sum(const std::vector<int>& world_ranks, std::int64_t i) {
  double sum = 0;
  for (const int rank : world_ranks) sum += contribution(rank, i);
  return sum;
}

inline double serial_max(const std::vector<int>& world_ranks, std::int64_t i) {
  double largest = contribution(world_ranks.front(), i);
  for (const int rank : world_ranks) largest = std::max(largest, contribution(rank, i));
  return largest;
}

}  // namespace llama3d::test
