#include "pipeline/buffer_pool.hpp"

#include <algorithm>
#include <utility>

namespace llama3d {

int BufferPool::acquire(Stream& stream) {
  Entry* best = nullptr;
  for (Entry& entry : entries_) {
    if (entry.used) continue;
    const bool idle = !entry.transfer;
    if (!best || (idle && best->transfer) || (idle == !best->transfer && entry.released < best->released))
      best = &entry;
  }
  LLAMA3D_EXPECT(best, "all {} boundary buffers are in use", entries_.size());
  if (const auto transfer = std::exchange(best->transfer, nullptr)) transfer->wait(stream);
  best->used = true;
  return static_cast<int>(best - entries_.data());
}

void BufferPool::release_after(int index, SharedWorkHandle transfer) {
  Entry& entry = entries_[static_cast<std::size_t>(index)];
  LLAMA3D_EXPECT(entry.used, "boundary buffer {} released twice", index);
  entry.used = false;
  entry.transfer = std::move(transfer);
  entry.released = ++clock_;
}

void BufferPool::drain(Stream& stream) {
  for (Entry& entry : entries_)
    if (const auto transfer = std::exchange(entry.transfer, nullptr)) transfer->wait(stream);
}

int BufferPool::in_use() const {
  return static_cast<int>(
      std::count_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.used; }));
}

}  // namespace llama3d
