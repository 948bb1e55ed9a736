#pragma once
// A group of one rank over host memory.

#include "mpi/communicator.hpp"

namespace llama3d {

/// Moves nothing, but copies where in and out differ. Tensors are in host memory.
class LocalCommunicator final : public Communicator {
 public:
  explicit LocalCommunicator(CommunicationLog& log) : Communicator(0, 1, log) {}

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) override;
  WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) override;
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) override;
};

}  // namespace llama3d
