#pragma once
// Random operands on a device, and the time that calls on them take.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "compute/kernels.hpp"

namespace llama3d {

struct BenchOptions {
  int warmup = 2;    ///< untimed rounds over all sets of operands
  int repeats = 20;  ///< timed rounds
};

/// One thing to time. `prepare` makes operands and returns the call on them; it is asked for several sets.
struct BenchCase {
  std::function<std::function<void()>()> prepare;
  double bytes = 0;  ///< that a call touches: decides how many sets are needed to fill no cache twice
};

class Laboratory {
 public:
  /// `device` must outlive the laboratory.
  Laboratory(Device& device, const BenchOptions& options);

  Kernels& kernels() { return device_->kernels(); }
  Stream& stream() { return *stream_; }
  Device& device() { return *device_; }

  /// Device memory that lives until the next call of `median_seconds` ends. Normal deviates.
  Tensor normal(DType dtype, Shape shape, float deviation = 1);
  Tensor zeros(DType dtype, Shape shape);
  Tensor integers(std::span<const std::int32_t> values);
  /// Uniform integers below `bound`.
  Tensor random_ids(std::int64_t count, std::int64_t bound);

  /// Gives the kernels workspace for these sizes.
  void set_workspace(const WorkspaceRequest& request);
  /// Median seconds of a call; frees the operands.
  double median_seconds(const BenchCase& bench);

 private:
  Tensor take(DType dtype, Shape shape);
  /// Of one call, from calling all of them one after the other.
  double seconds_of(std::span<const std::function<void()>> calls);

  Device* device_;
  BenchOptions options_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Event> begin_, end_;
  DeviceMemory workspace_;
  std::vector<DeviceMemory> memory_;
  std::uint64_t seed_ = 1;
};

/// Bytes per second read and written by a large copy, and FLOP/s of a large GEMM of `dtype`.
double measured_copy_rate(Laboratory& laboratory);
double measured_gemm_rate(Laboratory& laboratory, DType dtype);

}  // namespace llama3d
