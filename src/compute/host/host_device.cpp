#include "compute/host/host_device.hpp"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "base/host_memory.hpp"
#include "compute/host/blas.hpp"
#include "compute/host/cpu_features.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d {
namespace {

using Clock = std::chrono::steady_clock;

class HostEvent final : public Event {
 public:
  void synchronize() const override {}

  std::optional<Clock::time_point> moment;
};

/// Work given to this stream is done when the call that gives it returns.
class HostStream final : public Stream {
 public:
  void record(Event& event) override { dynamic_cast<HostEvent&>(event).moment = Clock::now(); }
  void wait(const Event&) override {}
  void synchronize() override {}
};

// --- memory ------------------------------------------------------------------------------------------------

constexpr std::size_t block_alignment = 256;
constexpr std::size_t huge_page = std::size_t{2} << 20;

std::atomic<std::size_t> bytes_in_use = 0;

/// Room in front of each block for what it adds to bytes_in_use, so that release can count it back.
std::size_t& counted_bytes(void* data) {
  return *reinterpret_cast<std::size_t*>(static_cast<std::byte*>(data) - block_alignment);
}

void release(void* data) {
  bytes_in_use -= counted_bytes(data);
  std::free(static_cast<std::byte*>(data) - block_alignment);
}

/// `counted`: the block is memory of the device, not of the host beside it.
DeviceMemory allocate_block(std::size_t bytes, bool counted) {
  const bool large = bytes >= 4 * huge_page;
  const std::size_t alignment = large ? huge_page : block_alignment;
  const std::size_t whole = (bytes + block_alignment + alignment - 1) / alignment * alignment;
  void* block = whole >= bytes ? std::aligned_alloc(alignment, whole) : nullptr;
  if (!block) {
    throw Error(
        ExitStatus::failure,
        fmt::format("cannot allocate {} bytes (the system refused); use a smaller micro-batch or model, "
                    "or more ranks",
                    bytes));
  }
  // Large pages spare address translation; without them everything works the same.
  if (large) madvise(block, whole, MADV_HUGEPAGE);
  void* data = static_cast<std::byte*>(block) + block_alignment;
  counted_bytes(data) = counted ? bytes : 0;
  bytes_in_use += counted_bytes(data);
  return {data, release};
}

std::string cpu_name() {
  return system_field("/proc/cpuinfo", "model name").value_or("unknown CPU");
}

// --- the device --------------------------------------------------------------------------------------------

class HostDevice final : public Device {
 public:
  explicit HostDevice(int threads)
      : name_(cpu_name()), memory_bytes_(available_host_memory()), kernels_(threads) {}

  std::string kind() const override { return "cpu"; }
  std::string name() const override { return name_; }
  std::optional<double> peak_flops(DType) const override { return std::nullopt; }
  std::string peak_source() const override { return "no peak is assumed for CPUs"; }
  std::size_t memory_bytes() const override { return memory_bytes_; }
  std::size_t memory_in_use() const override { return bytes_in_use; }

  Kernels& kernels() override { return kernels_; }
  std::unique_ptr<Stream> create_stream(StreamPriority) override { return std::make_unique<HostStream>(); }
  bool asynchronous() const override { return false; }
  std::unique_ptr<Event> create_event() override { return std::make_unique<HostEvent>(); }
  double elapsed_seconds(const Event& begin, const Event& end) const override {
    const auto& first = dynamic_cast<const HostEvent&>(begin).moment;
    const auto& last = dynamic_cast<const HostEvent&>(end).moment;
    LLAMA3D_EXPECT(first && last, "time between events of which one was never recorded");
    return std::chrono::duration<double>(*last - *first).count();
  }

  DeviceMemory allocate(std::size_t bytes) override { return allocate_block(bytes, true); }
  DeviceMemory allocate_host(std::size_t bytes) override { return allocate_block(bytes, false); }
  void upload(const Tensor& destination, const void* source, Stream&) override {
    if (destination.bytes() > 0) std::memcpy(destination.data(), source, destination.bytes());
  }
  void download(void* destination, const Tensor& source, Stream&) override {
    if (source.bytes() > 0) std::memcpy(destination, source.data(), source.bytes());
  }

 private:
  std::string name_;
  std::size_t memory_bytes_;
  host::HostKernels kernels_;
};

}  // namespace

std::unique_ptr<Device> make_host_device(int threads) {
  if (threads < 1 || threads > host::max_threads) {
    throw ConfigurationError(fmt::format("{} CPU threads (a rank takes 1 to {}); give the cores of the rank",
                                         threads, host::max_threads));
  }
  host::require_features(host::compiled_features);
  host::prepare_blas();
  return std::make_unique<HostDevice>(threads);
}

}  // namespace llama3d
