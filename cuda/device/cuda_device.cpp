#include "cuda/device/cuda_device.hpp"

#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

#include "base/bytes.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/peer_memory.hpp"

namespace llama3d {
namespace {

using cuda::check;

/// Dense peaks as NVIDIA's data sheets give them, TFLOP/s. The first entry whose words are in the GPU's name.
struct Peak {
  std::string_view name;
  double bf16, fp32;
};
constexpr std::array<Peak, 10> peaks = {{{"H100 PCIe", 756, 51},
                                         {"H100 NVL", 835, 60},
                                         {"H100", 989.4, 66.9},
                                         {"H200", 989.4, 66.9},
                                         {"H800", 989.4, 66.9},
                                         {"GH200", 989.4, 66.9},
                                         {"A100", 312, 19.5},
                                         {"A800", 312, 19.5},
                                         {"L40S", 362, 91.6},
                                         {"RTX 4090", 165.2, 82.6}}};

cuda::GpuTraits traits_of(int ordinal) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "asking for the GPU's properties");
  return {.multiprocessors = properties.multiProcessorCount,
          .architecture = 10 * properties.major + properties.minor,
          .name = properties.name,
          .shared_bytes = properties.sharedMemPerBlockOptin};
}

struct Memory {
  std::size_t free = 0, total = 0;
};

Memory memory_now() {
  Memory memory;
  check(cudaMemGetInfo(&memory.free, &memory.total), "asking for the GPU's memory");
  return memory;
}

/// Whether some work here may never end, for which freeing memory would wait.
std::atomic<bool> abandoned = false;

template <class Free>
void free_unless_abandoned(Free free, void* memory) {
  if (!abandoned) free(memory);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(cuda::GpuTraits traits, bool peers_map)
      : traits_(std::move(traits)),
        bytes_(memory_now().total),
        peers_map_(peers_map),
        counters_(allocate(counter_bytes)),
        kernels_(traits_, static_cast<int*>(counters_.get())) {
    check(cudaMemset(counters_.get(), 0, counter_bytes), "clearing the kernels' counters");
    check(cudaDeviceSynchronize(), "clearing the kernels' counters");
  }

  std::string kind() const override { return "cuda"; }
  std::string name() const override { return traits_.name; }
  std::optional<double> peak_flops(DType dtype) const override {
    if (dtype != DType::fp32 && dtype != DType::bf16) return std::nullopt;
    for (const Peak& peak : peaks)
      if (traits_.name.find(peak.name) != std::string::npos)
        return (dtype == DType::bf16 ? peak.bf16 : peak.fp32) * 1e12;
    return std::nullopt;
  }
  std::string peak_source() const override {
    return peak_flops(DType::bf16) ? "dense peak of NVIDIA's data sheet" : "no data sheet known for this GPU";
  }
  std::size_t memory_bytes() const override { return bytes_; }
  std::size_t memory_in_use() const override {
    const Memory now = memory_now();
    return now.total - now.free;
  }

  Kernels& kernels() override { return kernels_; }
  std::unique_ptr<Stream> create_stream(StreamPriority priority) override {
    return std::make_unique<cuda::CudaStream>(priority);
  }
  bool asynchronous() const override { return true; }
  std::unique_ptr<Event> create_event() override { return std::make_unique<cuda::CudaEvent>(); }
  double elapsed_seconds(const Event& begin, const Event& end) const override {
    return cuda::seconds_between(begin, end);
  }

  void start_profiler() override { check(cudaProfilerStart(), "starting the profiler"); }
  void stop_profiler() override {
    check(cudaDeviceSynchronize(), "waiting for the GPU");
    check(cudaProfilerStop(), "stopping the profiler");
  }

  void abandon() override { abandoned = true; }
  DeviceMemory allocate(std::size_t bytes) override;
  DeviceMemory allocate_host(std::size_t bytes) override;
  void upload(const Tensor& destination, const void* source, Stream& stream) override;
  void download(void* destination, const Tensor& source, Stream& stream) override;

 private:
  static constexpr std::size_t counter_bytes = 2 * sizeof(int);

  cuda::GpuTraits traits_;
  std::size_t bytes_;
  bool peers_map_;  ///< what is allocated
  DeviceMemory counters_;
  cuda::CudaKernels kernels_;
};

DeviceMemory CudaDevice::allocate(std::size_t bytes) {
  void* memory = nullptr;
  std::string failure;
  if (peers_map_)
    memory = cuda::allocate_peer_memory(bytes, failure);
  else if (const auto status = cudaMalloc(&memory, bytes); status != cudaSuccess)
    failure = cudaGetErrorString(status);
  if (!failure.empty()) {
    cudaGetLastError();
    throw Error(ExitStatus::failure,
                fmt::format("cannot allocate {} on the GPU ({}; {} are free); use a smaller micro-batch or "
                            "model, or more ranks",
                            format_bytes(bytes), failure, format_bytes(memory_now().free)));
  }
  if (peers_map_) return {memory, [](void* p) { free_unless_abandoned(cuda::free_peer_memory, p); }};
  return {memory, [](void* p) { free_unless_abandoned(cudaFree, p); }};
}

DeviceMemory CudaDevice::allocate_host(std::size_t bytes) {
  void* memory = nullptr;
  if (const auto status = cudaMallocHost(&memory, bytes); status != cudaSuccess) {
    cudaGetLastError();
    throw Error(ExitStatus::failure,
                fmt::format("cannot pin {} of host memory ({}); free memory on this host, or raise the limit "
                            "of locked memory (ulimit -l)",
                            format_bytes(bytes), cudaGetErrorString(status)));
  }
  return {memory, [](void* p) { free_unless_abandoned(cudaFreeHost, p); }};
}

void CudaDevice::upload(const Tensor& destination, const void* source, Stream& stream) {
  if (destination.bytes() == 0) return;
  check(cudaMemcpyAsync(destination.data(), source, destination.bytes(), cudaMemcpyDefault,
                        cuda::handle_of(stream)),
        fmt::format("copying {} to the GPU", destination.shape().to_string()));
}

void CudaDevice::download(void* destination, const Tensor& source, Stream& stream) {
  if (source.bytes() == 0) return;
  check(
      cudaMemcpyAsync(destination, source.data(), source.bytes(), cudaMemcpyDefault, cuda::handle_of(stream)),
      fmt::format("copying {} from the GPU", source.shape().to_string()));
}

/// Before the driver starts. Each stream gets a queue of its own to the GPU: where two shared one, work that
/// waits for another rank could hold up the work this rank owes to that one. Scripts written for other
/// trainers ask for a single queue.
void prepare_driver() {
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/1);
}

}  // namespace

int cuda_device_count() {
  prepare_driver();
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string cuda_device_identity(int node_rank) {
  const int count = cuda_device_count();
  if (count == 0) return {};
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, node_rank % count), "asking for the GPU's properties");
  std::string text = "GPU-";
  for (const char byte : properties.uuid.bytes)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

namespace {

/// Why the GPUs can't even be counted.
std::string reason_of(cudaError_t status) {
  if (status != cudaErrorInsufficientDriver) return cudaGetErrorString(status);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return cuda::reason_against_driver(driver, runtime);
}

}  // namespace

std::unique_ptr<Device> make_cuda_device(int node_rank, GpuUse use, int architecture) {
  prepare_driver();
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    throw ConfigurationError(
        fmt::format("`device` cuda: no GPU can be used ({}); use `device` cpu, or see "
                    "what nvidia-smi says",
                    status == cudaSuccess ? "none is visible" : reason_of(status)));
  }
  const int ordinal = node_rank % count;
  check(cudaSetDevice(ordinal), fmt::format("taking GPU {}", ordinal));
  cuda::GpuTraits traits = traits_of(ordinal);
  require_supported(traits);
  traits.shared = use == GpuUse::shared;
  traits.architecture = std::min(traits.architecture, architecture);
  return std::make_unique<CudaDevice>(std::move(traits), use == GpuUse::beside_peers);
}

}  // namespace llama3d
