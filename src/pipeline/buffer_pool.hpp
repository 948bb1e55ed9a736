#pragma once
// Buffers at the boundary of a stage: taken when a receive or a computation needs one, free again when the
// last reader is done, be it a computation or a send still under way.

#include <memory>
#include <vector>

#include "comm/communicator.hpp"

namespace llama3d {

/// A transfer that several buffers wait for.
class SharedWork {
 public:
  explicit SharedWork(WorkHandle work) : work_(std::move(work)) {}
  void wait(Stream& stream) {
    if (auto work = std::move(work_)) work->wait(stream);
  }

 private:
  WorkHandle work_;
};
using SharedWorkHandle = std::shared_ptr<SharedWork>;

class BufferPool {
 public:
  explicit BufferPool(std::vector<Tensor> buffers) : entries_(buffers.size()) {
    for (std::size_t i = 0; i < buffers.size(); ++i) entries_[i].tensor = buffers[i];
  }

  /// A free buffer's index; waits for the transfer that started first when all free ones are still being
  /// sent. ContractViolation when every buffer is in use.
  int acquire(Stream& stream);
  const Tensor& operator[](int index) const { return entries_[static_cast<std::size_t>(index)].tensor; }
  void release(int index) { release_after(index, nullptr); }
  /// Free once `transfer` is done.
  void release_after(int index, SharedWorkHandle transfer);
  /// Waits for all transfers.
  void drain(Stream& stream);
  int in_use() const;

 private:
  struct Entry {
    Tensor tensor;
    bool used = false;
    SharedWorkHandle transfer;
    std::int64_t released = 0;  ///< order of release
  };
  std::vector<Entry> entries_;
  std::int64_t clock_ = 0;
};

}  // namespace llama3d
