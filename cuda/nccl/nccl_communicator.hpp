#pragma once
// Collectives and transfers of tensors in GPU memory by NCCL, on a stream of their own.

#include <memory>
#include <mutex>
#include <vector>

#include "comm/communicator.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/nccl/nccl_calls.hpp"

namespace llama3d::cuda {

class EventPool;

/// Where an operation ends on the communicator's stream.
struct NcclEnd {
  std::shared_ptr<CudaEvent> reached;  ///< what others wait for
  std::shared_ptr<CudaEvent> timed;    ///< right behind, where its time may be asked for
};

class NcclCommunicator final : public Communicator {
 public:
  /// Takes over `comm`, which lives on the GPU of this ordinal, the current one. `takedown` is that of all
  /// communicators which end together.
  NcclCommunicator(NcclCommHandle comm, std::shared_ptr<NcclTakedown> takedown, CommunicationLog& log,
                   int ordinal, StreamPriority priority);
  ~NcclCommunicator() override;

  std::optional<std::string> asynchronous_failure() override;
  void abort() override;

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) override;
  WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) override;
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) override;
  void do_register_memory(const Tensor& memory) override;
  void do_unregister_memory() override;

 private:
  /// Queues `call`, which gives NCCL work on the stream it is told, behind the work of `stream`.
  template <class Call>
  WorkHandle launch(Stream& stream, Call&& call);

  std::shared_ptr<NcclTakedown> takedown_;
  NcclCommHandle comm_;
  int ordinal_;
  CudaStream stream_;
  std::shared_ptr<EventPool> events_, timed_events_;
  NcclEnd last_end_;  ///< of the operation launched last
  std::vector<ncclWindow_t> windows_;
  std::mutex abort_mutex_;
  bool aborted_ = false;
};

}  // namespace llama3d::cuda
