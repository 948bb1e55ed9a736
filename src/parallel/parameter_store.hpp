#pragma once
// Where the model's parameters and their gradients are, from the model's point of view: it asks for them
// group by group and gives them back, so that they may live elsewhere between uses.

#include <cstddef>

#include "compute/tensor.hpp"

namespace llama3d {

/// Groups are those of ParameterTable::groups(), by index. Each tensor holds a group's elements from its
/// first one on, (n). It may be used by work that is queued on the store's stream between the call that
/// acquires it and the call that releases it. A group may be acquired several times at once; every acquire
/// has a release.
class ParameterStore {
 public:
  virtual ~ParameterStore() = default;
  /// The parameters of the last update: compute dtype.
  virtual Tensor acquire(std::size_t group) = 0;
  virtual void release(std::size_t group) = 0;
  /// The step's gradients so far, to be added to; zero at first. Gradient dtype.
  virtual Tensor acquire_gradients(std::size_t group) = 0;
  /// `complete`: nothing is added to them any more in this step.
  virtual void release_gradients(std::size_t group, bool complete) = 0;
};

}  // namespace llama3d
