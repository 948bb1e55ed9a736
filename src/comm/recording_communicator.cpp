#include "comm/recording_communicator.hpp"

#include "comm/finished_work.hpp"

namespace llama3d {

WorkHandle RecordingCommunicator::do_all_reduce(const Tensor&, ReduceOperation, Stream&) {
  return std::make_unique<FinishedWork>();
}

WorkHandle RecordingCommunicator::do_all_gather(const Tensor&, const Tensor&, Stream&) {
  return std::make_unique<FinishedWork>();
}

WorkHandle RecordingCommunicator::do_reduce_scatter(const Tensor&, const Tensor&, Stream&) {
  return std::make_unique<FinishedWork>();
}

WorkHandle RecordingCommunicator::do_broadcast(const Tensor&, int, Stream&) {
  return std::make_unique<FinishedWork>();
}

WorkHandle RecordingCommunicator::do_exchange(std::span<const Transfer>, Stream&) {
  return std::make_unique<FinishedWork>();
}

std::unique_ptr<GridCommunicators> make_recording_communicators(const ProcessGrid& grid) {
  const GridShape& shape = grid.shape();
  const GridCoordinate& at = grid.coordinate();
  auto group = std::make_unique<GridCommunicators>();
  const auto make = [&](int rank, int size) {
    return std::make_unique<RecordingCommunicator>(rank, size, group->log);
  };
  group->world = make(grid.rank(), shape.world());
  group->tp = make(at.tp, shape.tp);
  group->dp = make(at.dp, shape.dp);
  group->pp_forward = make(at.pp, shape.pp);
  group->pp_backward = make(at.pp, shape.pp);
  if (shape.pp > 1 && (grid.first_stage() || grid.last_stage()))
    group->embedding = make(at.pp == 0 ? 0 : 1, 2);
  return group;
}

}  // namespace llama3d
