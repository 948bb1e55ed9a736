#include "optim/resident_store.hpp"

#include <algorithm>
#include <utility>

#include "comm/labels.hpp"
#include "compute/kernels.hpp"

namespace llama3d {

ResidentParameterStore::ResidentParameterStore(const ParameterTable& table, const ModelStateMemory& memory,
                                               std::vector<OwnedSlice> slices, Communicator& dp,
                                               Kernels& kernels, Stream& stream)
    : table_(&table),
      memory_(&memory),
      slices_(std::move(slices)),
      dp_(&dp),
      kernels_(&kernels),
      stream_(&stream),
      reductions_(slices_.size()),
      arrivals_(slices_.size()),
      zeroed_(slices_.size()),
      reduced_(slices_.size()) {}

Tensor ResidentParameterStore::acquire(std::size_t group) {
  wait_for(group);
  return table_->group_of(memory_->parameters, group);
}

Tensor ResidentParameterStore::acquire_gradients(std::size_t group) {
  LLAMA3D_EXPECT(!reduced_[group], "gradients of group {} used after they were complete", group);
  const Tensor gradients = table_->group_of(memory_->gradients, group);
  if (!zeroed_[group]) kernels_->fill_zero(gradients, *stream_);
  zeroed_[group] = true;
  return gradients;
}

void ResidentParameterStore::release_gradients(std::size_t group, bool complete) {
  if (complete && !table_->groups()[group].tied) reduce(group);
}

void ResidentParameterStore::begin_step() {
  std::fill(zeroed_.begin(), zeroed_.end(), false);
  std::fill(reduced_.begin(), reduced_.end(), false);
}

void ResidentParameterStore::reduce(std::size_t group) {
  LLAMA3D_EXPECT(zeroed_[group] && !reduced_[group], "gradients of group {} reduced twice, or never begun",
                 group);
  const OwnedSlice& slice = slices_[group];
  reductions_[group] = dp_->reduce_scatter(table_->group_of(memory_->gradients, group),
                                           memory_->gradients.slice(slice.begin, slice.end),
                                           labels::dp_reduce_gradients, *stream_);
  reduced_[group] = true;
}

void ResidentParameterStore::wait_for_reductions() {
  for (WorkHandle& reduction : reductions_)
    if (const WorkHandle work = std::exchange(reduction, nullptr)) work->wait(*stream_);
}

void ResidentParameterStore::gather(std::size_t group, Stream& stream, const Event* updated) {
  const OwnedSlice& slice = slices_[group];
  arrivals_[group] = {
      dp_->all_gather(memory_->parameters.slice(slice.begin, slice.end),
                      table_->group_of(memory_->parameters, group), labels::dp_gather_parameters, stream),
      updated};
}

void ResidentParameterStore::wait_for(std::size_t group) {
  const Arrival arrival = std::exchange(arrivals_[group], {});
  if (arrival.updated) stream_->wait(*arrival.updated);
  if (arrival.gather) arrival.gather->wait(*stream_);
}

void ResidentParameterStore::wait_for_parameters() {
  for (std::size_t group = 0; group < arrivals_.size(); ++group) wait_for(group);
}

}  // namespace llama3d
