#include "bench/laboratory.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/philox.hpp"

namespace llama3d {
namespace {

/// Beyond any cache: operands of one call after the other.
constexpr double bytes_of_all_sets = double{1 << 30};
constexpr int most_sets = 16;
/// Timed as one, so that what is left to see of starting and ending is what a call costs among others.
constexpr std::size_t least_calls = 8;

bool is_gpu(const Device& device) {
  return device.kind() != "cpu";
}

}  // namespace

Laboratory::Laboratory(Device& device, const BenchOptions& options)
    : device_(&device),
      options_(options),
      stream_(device.create_stream(StreamPriority::normal)),
      begin_(device.create_event()),
      end_(device.create_event()),
      workspace_(nullptr, [](void*) {}) {}

Tensor Laboratory::take(DType dtype, Shape shape) {
  const Tensor measured(nullptr, dtype, shape);
  memory_.push_back(device_->allocate(std::max<std::size_t>(measured.bytes(), 1)));
  return {memory_.back().get(), dtype, shape};
}

Tensor Laboratory::normal(DType dtype, Shape shape, float deviation) {
  const Tensor tensor = take(dtype, shape);
  const std::int64_t rows = tensor.rows(), columns = tensor.columns();
  kernels().fill_normal(tensor.reshape({rows, columns}), seed_++, 0, 0, columns, deviation, *stream_);
  return tensor;
}

Tensor Laboratory::zeros(DType dtype, Shape shape) {
  const Tensor tensor = take(dtype, shape);
  kernels().fill_zero(tensor, *stream_);
  return tensor;
}

Tensor Laboratory::integers(std::span<const std::int32_t> values) {
  const Tensor tensor = take(DType::int32, {static_cast<std::int64_t>(values.size())});
  const DeviceMemory staging = device_->allocate_host(std::max<std::size_t>(tensor.bytes(), 1));
  std::memcpy(staging.get(), values.data(), tensor.bytes());
  device_->upload(tensor, staging.get(), *stream_);
  stream_->synchronize();
  return tensor;
}

Tensor Laboratory::random_ids(std::int64_t count, std::int64_t bound) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<std::int32_t>(philox4x32(seed_, static_cast<std::uint64_t>(i))[0] %
                                            static_cast<std::uint32_t>(bound)));
  ++seed_;
  return integers(ids);
}

void Laboratory::set_workspace(const WorkspaceRequest& request) {
  const std::size_t bytes = std::max<std::size_t>(kernels().workspace_bytes(request), 4);
  workspace_ = device_->allocate(bytes);
  kernels().set_workspace({workspace_.get(), DType::fp32, {static_cast<std::int64_t>(bytes / 4)}});
}

double Laboratory::seconds_of(std::span<const std::function<void()>> calls) {
  stream_->record(*begin_);
  for (const auto& call : calls) call();
  stream_->record(*end_);
  stream_->synchronize();
  return device_->elapsed_seconds(*begin_, *end_) / static_cast<double>(calls.size());
}

double Laboratory::median_seconds(const BenchCase& bench) {
  const int sets =
      is_gpu(*device_)
          ? static_cast<int>(
                std::clamp(std::ceil(bytes_of_all_sets / std::max(bench.bytes, 1.0)), 1.0, double{most_sets}))
          : 1;
  std::vector<std::function<void()>> calls;
  for (int set = 0; set < sets; ++set) calls.push_back(bench.prepare());
  if (is_gpu(*device_))
    for (std::size_t next = 0; calls.size() < least_calls; ++next) calls.push_back(calls[next]);
  for (int round = 0; round < options_.warmup; ++round)
    for (const auto& call : calls) call();
  std::vector<double> seconds;
  for (int i = 0; i < options_.repeats; ++i) seconds.push_back(seconds_of(calls));
  memory_.clear();
  std::nth_element(seconds.begin(), seconds.begin() + options_.repeats / 2, seconds.end());
  return seconds[static_cast<std::size_t>(options_.repeats / 2)];
}

double measured_copy_rate(Laboratory& lab) {
  const std::int64_t bytes = is_gpu(lab.device()) ? std::int64_t{1} << 30 : std::int64_t{32} << 20;
  const double seconds =
      lab.median_seconds({[&] {
                            const Tensor from = lab.normal(DType::fp32, {bytes / 4096, 1024});
                            const Tensor to = lab.zeros(DType::fp32, {bytes / 4096, 1024});
                            return [&lab, from, to] { lab.kernels().copy(from, to, lab.stream()); };
                          },
                          2.0 * static_cast<double>(bytes)});
  return 2.0 * static_cast<double>(bytes) / seconds;
}

double measured_gemm_rate(Laboratory& lab, DType dtype) {
  const std::int64_t n = is_gpu(lab.device()) ? 8192 : 512;
  WorkspaceRequest request;
  request.compute = dtype;
  request.tokens = request.hidden = request.largest_features = n;
  request.largest_weight = n * n;
  request.attention = {1, 1, 64};
  lab.set_workspace(request);
  const double seconds =
      lab.median_seconds({[&] {
                            const Tensor x = lab.normal(dtype, {n, n}), w = lab.normal(dtype, {n, n}),
                                         y = lab.zeros(dtype, {n, n});
                            return [&lab, x, w, y] { lab.kernels().linear_forward(x, w, y, lab.stream()); };
                          },
                          3.0 * static_cast<double>(n * n) * static_cast<double>(size_of(dtype))});
  return 2.0 * std::pow(static_cast<double>(n), 3) / seconds;
}

}  // namespace llama3d
