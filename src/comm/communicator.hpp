#pragma once
// Collectives and transfers of tensors between the ranks of a group.
//
// Semantics, the same for every implementation (MPI here, NCCL in cuda/, one rank, recording):
//  - Operations are asynchronous: they start after the work queued on the `stream` argument so far, and
//    return a Work. Work::wait(stream) orders that stream's later work after the operation; until then
//    nothing may touch the tensors, and they must stay alive. Every Work must be waited for, once.
//  - Operations of one communicator are carried out one after another, those of different ones beside each
//    other.
//  - All ranks of a group call the same operations in the same order with the same sizes and labels.
//    Transfers (exchange) only match between the two ranks concerned, in order for each pair and direction.
//  - Ranks are those of the group. Counts are elements. fp32, bf16, fp64 and int32; sums of bf16 round at
//    each addition. The order of additions depends on sizes and group only: the same call twice gives the
//    same bits. The maximum of a NaN and a number is either.
//  - In place: all_reduce and broadcast always; all_gather when `in` is the caller's own slice of `out`;
//    reduce_scatter when `out` is the caller's own slice of `in` (the other slices are then undefined).
//  - A group of one moves nothing, but copies where in and out differ.
//  - Errors: shapes and dtypes by ContractViolation; a lost peer by RankLostError, unless a watchdog looks:
//    it ends the job, and the call does not return (Activity::during).

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/axis.hpp"
#include "comm/communication_log.hpp"
#include "compute/device.hpp"
#include "compute/tensor.hpp"

namespace llama3d {

/// An operation under way.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait(Stream& stream) = 0;
  /// What a device carries out; none where the host does.
  virtual std::shared_ptr<const DeviceOperation> device_operation() const;
};
using WorkHandle = std::unique_ptr<Work>;

enum class ReduceOperation { sum, max };

/// One side of a point-to-point transfer.
struct Transfer {
  enum class Direction { send, receive };
  Direction direction = Direction::send;
  Tensor tensor;
  int peer = 0;
};

class Communicator {
 public:
  /// `log` must outlive the communicator.
  Communicator(int rank, int size, CommunicationLog& log) : rank_(rank), size_(size), log_(&log) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// That of the rank.
  Activity& activity() const { return log_->activity(); }

  /// inout tensor = reduction over the group.
  WorkHandle all_reduce(const Tensor& tensor, ReduceOperation operation, Label label, Stream& stream);
  /// out = concatenation of every rank's `in` in rank order; out has size() times in's elements.
  WorkHandle all_gather(const Tensor& in, const Tensor& out, Label label, Stream& stream);
  /// out = this rank's 1/size() of the sum over the group of `in`; in has size() times out's elements.
  WorkHandle reduce_scatter(const Tensor& in, const Tensor& out, Label label, Stream& stream);
  /// Every rank's tensor becomes root's.
  WorkHandle broadcast(const Tensor& tensor, int root, Label label, Stream& stream);
  /// Starts all transfers together, so that none waits for another of the same call. What is called next may
  /// wait until the peer has received what is sent.
  WorkHandle exchange(std::span<const Transfer> transfers, Label label, Stream& stream);

  /// Tells that `memory`, which has the same size on every rank, will be moved often, a tensor from the same
  /// place of it on every rank. It outlives the communicator, or `unregister_memory`. Collective.
  void register_memory(const Tensor& memory);
  /// Of all memory told so far. Collective, once nothing moves it.
  void unregister_memory();
  /// What went wrong while an operation was under way, in the library's words; from any thread.
  virtual std::optional<std::string> asynchronous_failure();
  /// Gives up operations under way, so that devices get free; from any thread. The communicator is of no use
  /// afterwards.
  virtual void abort();

 protected:
  /// Of the operation that is being started, for a device.
  const OperationTiming& timing() const { return timing_; }
  virtual WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) = 0;
  virtual WorkHandle do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) = 0;
  virtual WorkHandle do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) = 0;
  virtual WorkHandle do_broadcast(const Tensor& tensor, int root, Stream& stream) = 0;
  virtual WorkHandle do_exchange(std::span<const Transfer> transfers, Stream& stream) = 0;
  virtual void do_register_memory(const Tensor& memory);
  virtual void do_unregister_memory();

 private:
  /// Starts the operation, counts it and makes its wait count too.
  template <class Start>
  WorkHandle logged(Label label, std::int64_t bytes, Stream& stream, Start&& start);

  int rank_;
  int size_;
  CommunicationLog* log_;
  OperationTiming timing_;
};

/// Aborts each in a thread of its own: a device may take its time, and one abort may wait for operations that
/// only another ends. False when that is not done after so many seconds: the communicators must then live as
/// long as the process.
bool abort_all(const std::vector<Communicator*>& communicators, double seconds);

/// The communicators of one rank of the grid.
struct GridCommunicators {
  CommunicationLog log;
  std::unique_ptr<Communicator> world;
  /// The pipeline's two directions are separate channels, so that activations going down never queue behind
  /// gradients coming up.
  std::unique_ptr<Communicator> pp_forward, pp_backward;
  /// First and last stage of the pipeline group, for tied embeddings; empty elsewhere or when there is one
  /// stage.
  std::unique_ptr<Communicator> embedding;

  /// Of ProcessGrid::group(axis). Throws ContractViolation for the pipeline, which has channels.
  Communicator& operator[](Axis axis) const;
  void set(Axis axis, std::unique_ptr<Communicator> communicator);

  /// Those that exist.
  std::vector<Communicator*> all() const;

 private:
  std::array<std::unique_ptr<Communicator>, collective_axes.size()> by_axis_;
};

}  // namespace llama3d
