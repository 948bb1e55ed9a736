#include "cuda/device/cuda_stream.hpp"

#include <nvtx3/nvToolsExt.h>

#include "cuda/device/check.hpp"

namespace llama3d::cuda {

CudaEvent::CudaEvent(bool timed) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming),
        "creating an event");
  event_.reset(event);
}

void CudaEvent::synchronize() const {
  check(cudaEventSynchronize(handle()), "waiting for an event");
}

double seconds_between(const Event& begin, const Event& end) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, dynamic_cast<const CudaEvent&>(begin).handle(),
                             dynamic_cast<const CudaEvent&>(end).handle()),
        "reading the time between two events");
  return milliseconds * 1e-3;
}

CudaStream::CudaStream(StreamPriority priority) {
  int lowest = 0, highest = 0;
  check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "asking for stream priorities");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                     priority == StreamPriority::high ? highest : lowest),
        "creating a stream");
  stream_.reset(stream);
}

void CudaStream::record(Event& event) {
  check(cudaEventRecord(dynamic_cast<CudaEvent&>(event).handle(), handle()), "recording an event");
}

void CudaStream::wait(const Event& event) {
  check(cudaStreamWaitEvent(handle(), dynamic_cast<const CudaEvent&>(event).handle(), 0),
        "waiting for an event");
}

void CudaStream::synchronize() {
  check(cudaStreamSynchronize(handle()), "waiting for the work of a stream");
}

void CudaStream::begin_range(const char* name) {
  nvtxRangePushA(name);
}

void CudaStream::end_range() {
  nvtxRangePop();
}

void copy_gpu_tensor(const Tensor& in, const Tensor& out, Stream& stream) {
  check(cudaMemcpyAsync(out.data(), in.data(), in.bytes(), cudaMemcpyDeviceToDevice, handle_of(stream)),
        fmt::format("copying {} on the GPU", in.shape().to_string()));
}

cudaStream_t handle_of(Stream& stream) {
  return dynamic_cast<CudaStream&>(stream).handle();
}

}  // namespace llama3d::cuda
