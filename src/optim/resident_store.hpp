#pragma once
// Parameters and gradients that stay in device memory, whole on every data-parallel rank: gradients leave by
// reduce-scatter as they get complete, updated parameters come back by all-gather.

#include <vector>

#include "comm/communicator.hpp"
#include "optim/optimizer_state.hpp"
#include "parallel/parameter_store.hpp"

namespace llama3d {

class ResidentParameterStore final : public ParameterStore {
 public:
  /// `slices`: this rank's of every group, one of dp.size() equal parts, or all of it where nothing is
  /// updated. All references must outlive the store; its stream is `stream`.
  ResidentParameterStore(const ParameterTable& table, const ModelStateMemory& memory,
                         std::vector<OwnedSlice> slices, Communicator& dp, Kernels& kernels, Stream& stream);

  Tensor acquire(std::size_t group) override;
  void release(std::size_t) override {}
  Tensor acquire_gradients(std::size_t group) override;
  /// Complete ones are reduced, unless those of another stage have to be added first.
  void release_gradients(std::size_t group, bool complete) override;

  const std::vector<OwnedSlice>& slices() const { return slices_; }
  /// Gradients of all groups are zero when they are acquired next, and not reduced.
  void begin_step();
  bool reduced(std::size_t group) const { return reduced_[group]; }
  /// Starts the reduce-scatter of a group, once a step.
  void reduce(std::size_t group);
  /// Later work on the stream may use this rank's slices of all gradients.
  void wait_for_reductions();
  /// Starts to bring every rank's slice of a group to all of them after the work queued on `stream`. Who
  /// acquires the group waits for that, and for `updated`, which must outlive the wait.
  void gather(std::size_t group, Stream& stream, const Event* updated = nullptr);
  /// Later work on the store's stream may use all parameters.
  void wait_for_parameters();

 private:
  /// An update of a group's parameters on its way.
  struct Arrival {
    WorkHandle gather;
    const Event* updated = nullptr;
  };
  void wait_for(std::size_t group);

  const ParameterTable* table_;
  const ModelStateMemory* memory_;
  std::vector<OwnedSlice> slices_;
  Communicator* dp_;
  Kernels* kernels_;
  Stream* stream_;
  std::vector<WorkHandle> reductions_;  ///< under way, one a group
  std::vector<Arrival> arrivals_;
  std::vector<bool> zeroed_, reduced_;
};

}  // namespace llama3d
