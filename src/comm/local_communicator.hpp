#pragma once
// A group of one rank.

#include "comm/communicator.hpp"

namespace llama3d {

/// Queues a copy between tensors of one size behind the work of the stream.
using CopyTensor = void (*)(const Tensor& in, const Tensor& out, Stream& stream);
/// Of host memory; done on return.
void copy_host_tensor(const Tensor& in, const Tensor& out, Stream& stream);

/// Moves nothing, but copies where in and out differ.
class LocalCommunicator final : public Communicator {
 public:
  explicit LocalCommunicator(CommunicationLog& log, CopyTensor copy = copy_host_tensor)
      : Communicator(0, 1, log), copy_(copy) {}

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) override;
  WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) override;
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) override;

 private:
  /// In place, as a run works, there is nothing to do and nothing to wait for.
  WorkHandle copied(const Tensor& in, const Tensor& out, Stream& stream) const;

  CopyTensor copy_;
};

/// Communicators of a grid of one rank: no MPI needed.
std::unique_ptr<GridCommunicators> make_local_communicators(CopyTensor copy = copy_host_tensor);

}  // namespace llama3d
