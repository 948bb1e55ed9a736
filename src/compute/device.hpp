#pragma once
// A machine that computes: its memory, its queues of work and its kernels. Everything from `parallel` up
// knows machines only through this interface; compute/host/ and cuda/ implement it.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "base/dtype.hpp"
#include "compute/tensor.hpp"

namespace llama3d {

class Kernels;

/// A point in a stream's work, and the time at which the stream passed it.
class Event {
 public:
  virtual ~Event() = default;
  /// Blocks the caller until the stream has passed the point last recorded, if any.
  virtual void synchronize() const = 0;
};

/// A queue of work on a device, executed in order. Operations given to different streams may overlap unless
/// ordered by record and wait. The host stream executes at once.
class Stream {
 public:
  virtual ~Stream() = default;
  /// Marks the end of the work queued so far.
  virtual void record(Event& event) = 0;
  /// Later work on this stream starts after the point that `event` last recorded.
  virtual void wait(const Event& event) = 0;
  /// Blocks the caller until all queued work is done.
  virtual void synchronize() = 0;

  /// Name the work given in between, for a profiler that looks on. Ranges nest. `name` ends in a zero byte.
  virtual void begin_range(const char* name);
  virtual void end_range();
};

/// Names the work given to a stream while it lives.
class WorkRange {
 public:
  WorkRange(Stream& stream, const char* name) : stream_(&stream) { stream.begin_range(name); }
  ~WorkRange() { stream_->end_range(); }
  WorkRange(const WorkRange&) = delete;
  WorkRange& operator=(const WorkRange&) = delete;

 private:
  Stream* stream_;
};

enum class StreamPriority { normal, high };

/// Releases memory where it was allocated.
using MemoryDeleter = void (*)(void*);
using DeviceMemory = std::unique_ptr<void, MemoryDeleter>;

class Device {
 public:
  virtual ~Device() = default;

  /// "cpu" or "cuda": the word that chooses it.
  virtual std::string kind() const = 0;
  /// Model name as the vendor writes it, for logs.
  virtual std::string name() const = 0;
  /// Dense peak FLOP/s for GEMMs of `dtype`, or none when it is not known (MFU is then NaN), and in
  /// one phrase where the figure comes from.
  virtual std::optional<double> peak_flops(DType dtype) const = 0;
  virtual std::string peak_source() const = 0;
  /// Bytes of memory the device has.
  virtual std::size_t memory_bytes() const = 0;
  /// Bytes of them taken now: on a GPU also by its driver, by communicators and by other processes.
  virtual std::size_t memory_in_use() const = 0;

  /// Whether work given to a stream is done later, beside the caller.
  virtual bool asynchronous() const = 0;

  virtual Kernels& kernels() = 0;
  virtual std::unique_ptr<Stream> create_stream(StreamPriority priority) = 0;
  virtual std::unique_ptr<Event> create_event() = 0;
  /// Seconds between the moments two recorded events were passed. Both must have completed.
  virtual double elapsed_seconds(const Event& begin, const Event& end) const = 0;

  /// What lies in between is what a profiler started with "wait for the program" should see.
  virtual void start_profiler();
  virtual void stop_profiler();

  /// For a process that fails: work given to streams may never end, and from now on nothing waits for it.
  /// Memory is left to the end of the process.
  virtual void abandon() {}

  /// Device memory, 256-byte aligned, contents undefined. Throws Error when there is not enough.
  virtual DeviceMemory allocate(std::size_t bytes) = 0;
  /// Host memory that `upload` and `download` move asynchronously (pinned on GPUs). Tensors in it can be
  /// given to kernels, uploads and downloads like others, at the speed of the link.
  virtual DeviceMemory allocate_host(std::size_t bytes) = 0;

  /// Queue a copy between host memory (from allocate_host, alive until the stream passed it) and the device.
  virtual void upload(const Tensor& device_destination, const void* host_source, Stream& stream) = 0;
  virtual void download(void* host_destination, const Tensor& device_source, Stream& stream) = 0;
};

}  // namespace llama3d
