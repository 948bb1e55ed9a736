#include "compute/host/host_device.hpp"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/error.hpp"
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

// --- what the system says of itself
// --------------------------------------------------------------------------

/// The text after the colon of the first line of `file` that starts with `key`.
std::optional<std::string> field(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    const auto text = line.find_first_not_of(" \t", colon + 1);
    return text == std::string::npos ? std::string() : line.substr(text);
  }
  return std::nullopt;
}

std::string cpu_name() {
  return field("/proc/cpuinfo", "model name").value_or("unknown CPU");
}

std::size_t available_memory() {
  if (const auto text = field("/proc/meminfo", "MemAvailable")) {
    return static_cast<std::size_t>(std::strtoull(text->c_str(), nullptr, 10)) * 1024;
  }
  return std::numeric_limits<std::size_t>::max();
}

/// The number in a control group's limit file; none for "max" or no such file.
std::optional<std::size_t> limit_in(const std::string& file) {
  std::ifstream in(file);
  std::size_t limit = 0;
  if (in >> limit) return limit;
  return std::nullopt;
}

/// The lowest memory limit of this process's control group and the groups around it (versions 2 and 1).
std::size_t cgroup_limit() {
  std::size_t lowest = std::numeric_limits<std::size_t>::max();
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version2 = controllers.empty();
    if (!version2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const std::string file = version2 ? "/memory.max" : "/memory.limit_in_bytes";
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      if (const auto limit = limit_in(root + (group == "/" ? "" : group) + file))
        lowest = std::min(lowest, *limit);
      if (group.find('/') == std::string::npos) break;
    }
  }
  return lowest;
}

// --- the device
// ----------------------------------------------------------------------------------------------

class HostDevice final : public Device {
 public:
  explicit HostDevice(int threads)
      : name_(cpu_name()), memory_bytes_(std::min(cgroup_limit(), available_memory())), kernels_(threads) {}

  std::string kind() const override { return "cpu"; }
  std::string name() const override { return name_; }
  std::optional<double> peak_flops(DType) const override { return std::nullopt; }
  std::string peak_source() const override { return "no peak is assumed for CPUs"; }
  std::size_t memory_bytes() const override { return memory_bytes_; }
  std::size_t reserved_bytes() const override { return 0; }
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
