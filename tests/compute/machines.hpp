#pragma once
// The machines that every kernel test runs on, buffers on them, and how far results may be from the truth.

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <functional>
#include <iosfwd>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "compute/device.hpp"
#include "compute/kernels.hpp"
#include "support/relative_error.hpp"

namespace llama3d::test {

/// A device with a stream and a workspace large enough for every test.
struct Machine {
  explicit Machine(std::unique_ptr<Device> made);

  Kernels& kernels() { return device->kernels(); }

  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  DeviceMemory workspace;
};

/// One of the machines by name. It is made on first use and lives until the program ends.
struct MachineCase {
  std::string name;
  Machine& get() const;
};
std::ostream& operator<<(std::ostream& out, const MachineCase& machine);

/// Every machine of this build. Another back end adds itself here and passes all of tests/compute/.
std::vector<MachineCase> machines();
/// The same, and the GPU with the attention of older ones.
std::vector<MachineCase> machines_old_and_new();
/// The oracle of the equivalence tests: the host kernels on one thread.
MachineCase oracle();

/// fp32 and bf16.
std::vector<DType> reals();

/// Values as they are after rounding to `dtype`.
std::vector<float> rounded(std::vector<float> values, DType dtype);
/// n deviates of `deviation` about `mean`, the same for the same seed, rounded to dtype.
std::vector<float> random_values(std::int64_t n, DType dtype, unsigned seed, float deviation = 1,
                                 float mean = 0);

/// A tensor on a machine that owns its memory.
class Buffer {
 public:
  /// Every element NaN (fp32, bf16, fp64) or the lowest integer: an output that an operation forgets shows.
  Buffer(Machine& machine, DType dtype, Shape shape);
  /// These elements, rounded to dtype.
  Buffer(Machine& machine, DType dtype, Shape shape, const std::vector<float>& values);
  Buffer(Machine& machine, Shape shape, const std::vector<std::int32_t>& values);
  Buffer(Machine& machine, Shape shape, const std::vector<double>& values);

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  /// The elements after all queued work, fp32 and bf16 exactly, fp64 rounded.
  std::vector<float> read() const;
  std::vector<double> read_doubles() const;

 private:
  Buffer(Machine& machine, DType dtype, Shape shape, const void* bytes);

  Machine* machine_;
  DeviceMemory memory_;
  Tensor tensor_;
};

/// The largest relative error norm that correct arithmetic gives: one rounding to `dtype` (half a unit in the
/// last place: 2^-9 for bf16, doubled for safety), and fp32 sums of `length` terms, whose rounding errors of
/// 2^-24 grow as the square root of the length; 8 covers cancellation and the few operations around the sum.
inline double tolerance(DType dtype, std::int64_t length) {
  const double storage = dtype == DType::bf16 ? 0x1p-8 : 0;
  return storage + 8 * 0x1p-24 * std::sqrt(static_cast<double>(std::max<std::int64_t>(1, length)));
}

/// What is asked of every operation whatever its length.
inline double most(DType dtype) {
  return dtype == DType::bf16 ? 1e-2 : 1e-5;
}

template <class A, class B>
double error_of(const std::vector<A>& actual, const std::vector<B>& expected) {
  return relative_error(std::span<const A>(actual), std::span<const B>(expected));
}

/// Checks the relative error norm of a whole tensor.
#define CHECK_AGREES(actual, expected, bound) \
  BOOST_CHECK_LE(::llama3d::test::error_of(actual, expected), bound)

/// Row metadata for documents of these lengths, positions counted from each document's first row.
struct Documents {
  Documents(Machine& machine, const std::vector<std::int64_t>& lengths);
  DocumentRows rows() const { return {start, end, position}; }

  std::vector<std::int32_t> starts, ends, positions;
  Buffer start, end, position;
};

}  // namespace llama3d::test

namespace llama3d {
std::ostream& operator<<(std::ostream& out, DType dtype);
}
