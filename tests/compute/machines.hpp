#pragma once
// The machines that every kernel test runs on, and buffers on them.

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <functional>
#include <iosfwd>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "compute/agreement.hpp"
#include "compute/device.hpp"
#include "compute/kernels.hpp"

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
  operator GemmOperand() const { return tensor_; }
  /// The elements after all queued work, fp32 and bf16 exactly, fp64 rounded.
  std::vector<float> read() const;
  std::vector<double> read_doubles() const;

 private:
  Buffer(Machine& machine, DType dtype, Shape shape, const void* bytes);

  Machine* machine_;
  DeviceMemory memory_;
  Tensor tensor_;
};

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
