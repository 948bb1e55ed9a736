#pragma once
// A communicator that only counts.

#include "comm/communicator.hpp"
#include "comm/process_grid.hpp"

namespace llama3d {

/// Checks and logs as any communicator, moves nothing, touches no memory: tensors of a measuring arena will
/// do. Outputs are left undefined.
class RecordingCommunicator final : public Communicator {
 public:
  using Communicator::Communicator;

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) override;
  WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) override;
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) override;
};

/// Communicators that move nothing and only count, for `grid`'s rank: plans and tests of grids larger than
/// the machine.
std::unique_ptr<GridCommunicators> make_recording_communicators(const ProcessGrid& grid);

}  // namespace llama3d
