#pragma once
// Finds an action in a rank's list.

#include <cstddef>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "pipeline/schedule.hpp"

namespace llama3d {

class ActionIndex {
 public:
  /// Throws ContractViolation, naming rank and action, for one that is there twice or outside of the shape.
  ActionIndex(const PipelineShape& shape, int stage, const std::vector<Action>& actions)
      : shape_(shape), places_(static_cast<std::size_t>(kActionKinds) * shape.chunks * shape.micro_batches) {
    for (std::size_t place = 0; place < actions.size(); ++place) {
      const Action& action = actions[place];
      LLAMA3D_EXPECT(action.micro_batch >= 0 && action.micro_batch < shape.micro_batches &&
                         action.chunk >= 0 && action.chunk < shape.chunks,
                     "rank {}: {} is not of this pipeline of {} chunks a stage and {} micro-batches", stage,
                     to_string(action), shape.chunks, shape.micro_batches);
      std::optional<std::size_t>& entry = places_[key(action)];
      LLAMA3D_EXPECT(!entry, "rank {} does {} twice", stage, to_string(action));
      entry = place;
    }
  }

  /// Place in the list; empty when it is not there.
  std::optional<std::size_t> find(const Action& action) const { return places_[key(action)]; }

 private:
  static constexpr int kActionKinds = static_cast<int>(ActionKind::backward_weight) + 1;

  std::size_t key(const Action& action) const {
    const int row = static_cast<int>(action.kind) * shape_.chunks + action.chunk;
    return static_cast<std::size_t>(row) * shape_.micro_batches + action.micro_batch;
  }

  PipelineShape shape_;
  std::vector<std::optional<std::size_t>> places_;
};

}  // namespace llama3d
