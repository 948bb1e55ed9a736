#pragma once
// Collectives and transfers of tensors in host memory over MPI.

#include <cstddef>
#include <vector>

#include "comm/communicator.hpp"
#include "mpi/mpi_calls.hpp"

namespace llama3d {

/// Host memory for an operation whose result cannot be written where it is wanted. Kept, and grown only when
/// an operation is larger than all before it.
struct ScratchBuffer {
  std::unique_ptr<std::byte[]> memory;
  std::size_t bytes = 0;
  bool busy = false;
};

/// Non-blocking MPI calls, after the stream has been synchronized. MPI moves data only inside calls, so an
/// operation may make no progress until some operation is started or waited for.
class MpiCommunicator final : public Communicator {
 public:
  /// Most elements given to one MPI call: MPI counts, and Open MPI's products of count and group size, are
  /// int.
  static constexpr std::int64_t default_piece_elements = std::int64_t{1} << 28;

  /// Takes over `comm`. Larger operations than `piece_elements` elements over the group go in pieces.
  MpiCommunicator(CommHandle comm, CommunicationLog& log,
                  std::int64_t piece_elements = default_piece_elements);
  ~MpiCommunicator() override;

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) override;
  WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) override;
  WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) override;
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) override;

 private:
  MPI_Op operation_for(ReduceOperation operation, DType dtype) const;
  ScratchBuffer& take_scratch(std::size_t bytes);
  WorkHandle gather_in_pieces(const Tensor& in, const Tensor& out);
  WorkHandle reduce_slices_in_pieces(const Tensor& in, const Tensor& out);

  CommHandle comm_;
  std::int64_t piece_elements_;
  OpHandle bf16_sum_, bf16_max_;
  std::vector<std::unique_ptr<ScratchBuffer>> scratch_;
};

}  // namespace llama3d
