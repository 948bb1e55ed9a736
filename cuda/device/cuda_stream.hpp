#pragma once
// Streams and events of the CUDA runtime behind the interfaces of compute/device.hpp.

#include <cuda_runtime_api.h>

#include "base/unique_handle.hpp"
#include "compute/device.hpp"

namespace llama3d::cuda {

class CudaEvent final : public Event {
 public:
  /// One that is not timed costs the streams less, and `seconds_between` refuses it.
  explicit CudaEvent(bool timed = true);
  void synchronize() const override;
  cudaEvent_t handle() const { return event_.get(); }

 private:
  struct Traits {
    using Handle = cudaEvent_t;
    static constexpr Handle invalid = nullptr;
    static void release(Handle event) { cudaEventDestroy(event); }
  };
  UniqueHandle<Traits> event_;
};

class CudaStream final : public Stream {
 public:
  explicit CudaStream(StreamPriority priority);
  void record(Event& event) override;
  void wait(const Event& event) override;
  void synchronize() override;
  void begin_range(const char* name) override;
  void end_range() override;
  cudaStream_t handle() const { return stream_.get(); }

 private:
  struct Traits {
    using Handle = cudaStream_t;
    static constexpr Handle invalid = nullptr;
    static void release(Handle stream) { cudaStreamDestroy(stream); }
  };
  UniqueHandle<Traits> stream_;
};

/// Seconds between the moments two recorded events were passed. Both must be timed and have completed.
double seconds_between(const Event& begin, const Event& end);

/// Queues a copy between tensors of one size on the GPU.
void copy_gpu_tensor(const Tensor& in, const Tensor& out, Stream& stream);

/// The stream that CUDA calls take. `stream` must be one of this back end's.
cudaStream_t handle_of(Stream& stream);

}  // namespace llama3d::cuda
