#pragma once

#include "comm/communicator.hpp"

namespace llama3d {

/// An operation that was done when it was started.
class FinishedWork final : public Work {
 public:
  void wait(Stream&) override {}
};

}  // namespace llama3d
