#include "mpi/local_communicator.hpp"

#include <cstring>

#include "mpi/finished_work.hpp"
#include "mpi/mpi_session.hpp"

namespace llama3d {
namespace {

/// In place, as a run works, there is nothing to do and nothing to wait for.
WorkHandle copied(const Tensor& in, const Tensor& out, Stream& stream) {
  if (in.bytes() > 0 && in.data() != out.data()) {
    stream.synchronize();
    std::memcpy(out.data(), in.data(), in.bytes());
  }
  return std::make_unique<FinishedWork>();
}

}  // namespace

WorkHandle LocalCommunicator::do_all_reduce(const Tensor&, ReduceOperation, Stream&) {
  return std::make_unique<FinishedWork>();
}

WorkHandle LocalCommunicator::do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) {
  return copied(in, out, stream);
}

WorkHandle LocalCommunicator::do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) {
  return copied(in, out, stream);
}

WorkHandle LocalCommunicator::do_broadcast(const Tensor&, int, Stream&) {
  return std::make_unique<FinishedWork>();
}

// A group of one has no peers, so there are no transfers.
WorkHandle LocalCommunicator::do_exchange(std::span<const Transfer>, Stream&) {
  return std::make_unique<FinishedWork>();
}

std::unique_ptr<GridCommunicators> make_local_communicators() {
  auto group = std::make_unique<GridCommunicators>();
  for (auto* member : {&group->world, &group->tp, &group->dp, &group->pp_forward, &group->pp_backward})
    *member = std::make_unique<LocalCommunicator>(group->log);
  return group;
}

}  // namespace llama3d
