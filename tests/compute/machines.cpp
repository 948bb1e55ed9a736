#include "compute/machines.hpp"

#include <cstring>
#include <map>
#include <ostream>
#include <random>

#include "compute/host/host_device.hpp"
#include "support/test_device.hpp"

namespace llama3d {
std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << name_of(dtype);
}
}  // namespace llama3d

namespace llama3d::test {
namespace {

using Factory = std::function<std::unique_ptr<Device>()>;

constexpr auto old_gpu = "cuda, attention of older GPUs";

using Factories = std::vector<std::pair<std::string, Factory>>;

/// A new back end is one more line.
const Factories& factories() {
  static const Factories all = [] {
    Factories made = {{"cpu 1 thread", [] { return make_host_device(1); }},
                      {"cpu 3 threads", [] { return make_host_device(3); }}};
    if (gpu_required() || gpu_available()) {
      made.push_back({"cuda", [] { return make_gpu(); }});
      made.push_back({old_gpu, make_gpu_of_old});
    }
    return made;
  }();
  return all;
}

template <class T>
std::vector<T> filled(std::int64_t n, T value) {
  return std::vector<T>(static_cast<std::size_t>(n), value);
}

/// The bytes of float values stored as dtype.
std::vector<std::byte> encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::fp32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else if (dtype == DType::bf16) {
      const bf16 small(values[i]);
      std::memcpy(&bytes[i * 2], &small, 2);
    } else {
      const double large = values[i];
      std::memcpy(&bytes[i * 8], &large, 8);
    }
  }
  return bytes;
}

}  // namespace

Machine::Machine(std::unique_ptr<Device> made)
    : device(std::move(made)),
      stream(device->create_stream(StreamPriority::normal)),
      workspace(nullptr, [](void*) {}) {
  // Beyond the largest sizes that any test uses.
  const WorkspaceRequest most{.tokens = 4608,
                              .hidden = 16384,
                              .largest_features = 16384,
                              .largest_weight = 512 * 512,
                              .attention = {40, 8, 128},
                              .qkv_bias = true,
                              .head_norm = true};
  std::size_t bytes = 0;
  for (const DType compute : reals())
    for (const DType gradient : reals()) {
      WorkspaceRequest request = most;
      request.compute = compute;
      request.gradient = gradient;
      bytes = std::max(bytes, kernels().workspace_bytes(request));
    }
  workspace = device->allocate(bytes);
  kernels().set_workspace({workspace.get(), DType::fp32, {static_cast<std::int64_t>(bytes / 4)}});
}

Machine& MachineCase::get() const {
  static std::map<std::string, Machine> made;
  const auto found = made.find(name);
  if (found != made.end()) return found->second;
  for (const auto& [known, factory] : factories()) {
    if (known == name) return made.try_emplace(name, factory()).first->second;
  }
  throw std::logic_error("no machine named " + name);
}

std::ostream& operator<<(std::ostream& out, const MachineCase& machine) {
  return out << machine.name;
}

std::vector<MachineCase> machines() {
  std::vector<MachineCase> all;
  for (const auto& [name, factory] : factories())
    if (name == "cuda" || (!gpu_required() && name != old_gpu)) all.push_back({name});
  return all;
}

std::vector<MachineCase> machines_old_and_new() {
  std::vector<MachineCase> all = machines();
  if (all.back().name == "cuda") all.push_back({old_gpu});
  return all;
}

MachineCase oracle() {
  return {factories().front().first};
}

std::vector<DType> reals() {
  return {DType::fp32, DType::bf16};
}

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  if (dtype == DType::bf16) {
    for (auto& value : values) value = static_cast<float>(bf16(value));
  }
  return values;
}

std::vector<float> random_values(std::int64_t n, DType dtype, unsigned seed, float deviation, float mean) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (auto& value : values) value = normal(generator);
  return rounded(std::move(values), dtype);
}

Buffer::Buffer(Machine& machine, DType dtype, Shape shape, const void* bytes)
    : machine_(&machine), memory_(nullptr, [](void*) {}), tensor_(nullptr, dtype, shape) {
  const std::size_t size = tensor_.bytes();
  memory_ = machine.device->allocate(std::max<std::size_t>(size, 1));
  tensor_ = Tensor(memory_.get(), dtype, shape);
  const DeviceMemory staging = machine.device->allocate_host(std::max<std::size_t>(size, 1));
  if (size > 0) std::memcpy(staging.get(), bytes, size);
  machine.device->upload(tensor_, staging.get(), *machine.stream);
  machine.stream->synchronize();
}

Buffer::Buffer(Machine& machine, DType dtype, Shape shape)
    : Buffer(machine, dtype, shape,
             dtype == DType::int32
                 ? static_cast<const void*>(
                       filled(shape.elements(), std::numeric_limits<std::int32_t>::lowest()).data())
                 : encode(filled(shape.elements(), std::numeric_limits<float>::quiet_NaN()), dtype).data()) {}

Buffer::Buffer(Machine& machine, DType dtype, Shape shape, const std::vector<float>& values)
    : Buffer(machine, dtype, shape, encode(values, dtype).data()) {
  BOOST_REQUIRE_EQUAL(static_cast<std::int64_t>(values.size()), shape.elements());
}

Buffer::Buffer(Machine& machine, Shape shape, const std::vector<std::int32_t>& values)
    : Buffer(machine, DType::int32, shape, values.data()) {
  BOOST_REQUIRE_EQUAL(static_cast<std::int64_t>(values.size()), shape.elements());
}

Buffer::Buffer(Machine& machine, Shape shape, const std::vector<double>& values)
    : Buffer(machine, DType::fp64, shape, values.data()) {
  BOOST_REQUIRE_EQUAL(static_cast<std::int64_t>(values.size()), shape.elements());
}

std::vector<double> Buffer::read_doubles() const {
  const DeviceMemory staging = machine_->device->allocate_host(std::max<std::size_t>(tensor_.bytes(), 1));
  machine_->device->download(staging.get(), tensor_, *machine_->stream);
  machine_->stream->synchronize();
  std::vector<double> values(static_cast<std::size_t>(tensor_.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    switch (tensor_.dtype()) {
      case DType::fp32: values[i] = static_cast<const float*>(staging.get())[i]; break;
      case DType::bf16: values[i] = static_cast<float>(static_cast<const bf16*>(staging.get())[i]); break;
      case DType::fp64: values[i] = static_cast<const double*>(staging.get())[i]; break;
      case DType::int32: values[i] = static_cast<const std::int32_t*>(staging.get())[i]; break;
    }
  }
  return values;
}

std::vector<float> Buffer::read() const {
  const auto values = read_doubles();
  return {values.begin(), values.end()};
}

namespace {

std::vector<std::int32_t> per_row(
    const std::vector<std::int64_t>& lengths,
    const std::function<std::int64_t(std::int64_t, std::int64_t, std::int64_t)>& f) {
  std::vector<std::int32_t> rows;
  for (const auto length : lengths) {
    const auto begin = static_cast<std::int64_t>(rows.size());
    for (std::int64_t i = 0; i < length; ++i) rows.push_back(static_cast<std::int32_t>(f(begin, i, length)));
  }
  return rows;
}

}  // namespace

Documents::Documents(Machine& machine, const std::vector<std::int64_t>& lengths)
    : starts(per_row(lengths, [](auto begin, auto, auto) { return begin; })),
      ends(per_row(lengths, [](auto begin, auto, auto length) { return begin + length; })),
      positions(per_row(lengths, [](auto, auto i, auto) { return i; })),
      start(machine, {static_cast<std::int64_t>(starts.size())}, starts),
      end(machine, {static_cast<std::int64_t>(starts.size())}, ends),
      position(machine, {static_cast<std::int64_t>(starts.size())}, positions) {}

}  // namespace llama3d::test
