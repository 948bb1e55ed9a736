#pragma once

#include "compute/device.hpp"

namespace llama3d::test {

/// The stream of a test that has no device: nothing is ever queued. Counts how often it was asked to
/// synchronize.
class ImmediateStream final : public Stream {
 public:
  void record(Event&) override {}
  void wait(const Event&) override {}
  void synchronize() override { ++synchronizations; }

  int synchronizations = 0;
};

}  // namespace llama3d::test
