#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace llama3d {

/// Work for the stream that nothing needs soon, such as weight gradients: put off until communication is
/// under way that it hides.
class DeferredWork {
 public:
  /// `at_once`: where there is no communication, everything is done as it comes.
  explicit DeferredWork(bool at_once) : at_once_(at_once) {}

  /// What `work` reads must stay until run().
  void put(std::function<void()> work) {
    if (at_once_)
      work();
    else
      works_.push_back(std::move(work));
  }
  bool empty() const { return works_.empty(); }
  /// All of it, in its order.
  void run() {
    for (const auto& work : std::exchange(works_, {})) work();
  }

 private:
  bool at_once_;
  std::vector<std::function<void()>> works_;
};

}  // namespace llama3d
