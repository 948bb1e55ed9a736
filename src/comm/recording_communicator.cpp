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
  auto group = std::make_unique<GridCommunicators>();
  const auto make = [&](int rank, int size) {
    return std::make_unique<RecordingCommunicator>(rank, size, group->log);
  };
  const auto of_axis = [&](Axis axis) { return make(grid.rank(axis), grid.size(axis)); };
  group->world = make(grid.rank(), grid.shape().world());
  for (const Axis axis : collective_axes) group->set(axis, of_axis(axis));
  group->pp_forward = of_axis(Axis::pipeline);
  group->pp_backward = of_axis(Axis::pipeline);
  if (grid.in_embedding_group()) group->embedding = make(grid.first_stage() ? 0 : 1, 2);
  return group;
}

}  // namespace llama3d
