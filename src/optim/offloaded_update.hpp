#pragma once
// AdamW over a state that lives in host memory: chunk by chunk it is brought to a slot on the device, updated
// there and taken back, uploads, updates and downloads each on a stream of their own.

#include <memory>
#include <vector>

#include "compute/kernels.hpp"
#include "optim/optimizer_state.hpp"

namespace llama3d {

class OffloadedUpdate {
 public:
  /// One chunk arrives, one is updated, one leaves, and one is between.
  static constexpr int slots = 4;

  /// `pieces`: what this rank updates of its slices. Groups are updated in the order of `order`, in chunks
  /// the size of memory.slots. `memory` and `device` must outlive this.
  OffloadedUpdate(const std::vector<OwnedSlice>& slices, const std::vector<std::size_t>& order,
                  const std::vector<AdamWPiece>& pieces, const ModelStateMemory& memory, Device& device);

  /// Where updates run.
  Stream& stream() { return *update_stream_; }
  /// Starts to bring the first chunks of the next update. The state in host memory must be left alone from
  /// here to the end of that update.
  void prefetch();
  /// Later work on stream() starts when `gradients` has done its work so far.
  void begin(Stream& gradients);
  /// Queues the update of the next group in order on stream(); returns its index.
  std::size_t update_next_group(const AdamWStep& step);
  /// The work on stream() so far is all that this rank's part of a group's parameters waits for: the event
  /// that tells its end.
  const Event& complete(std::size_t group) {
    update_stream_->record(*completed_[group]);
    return *completed_[group];
  }
  /// Later work on stream() starts when all of the state is back in host memory.
  void wait_for_downloads();

 private:
  struct Chunk {
    std::size_t group = 0;
    std::int64_t begin = 0, end = 0;  ///< of the whole state
    std::vector<AdamWPiece> pieces;   ///< state_begin within the chunk
  };
  struct Slot {
    AdamWState state;
    std::unique_ptr<Event> filled, updated, emptied;
  };
  void add_chunk(const OwnedSlice& slice, const std::vector<AdamWPiece>& pieces, std::int64_t begin,
                 std::int64_t end);
  Slot& slot_of(std::size_t chunk) { return slots_[chunk % slots_.size()]; }
  void upload(std::size_t chunk);
  void download(std::size_t chunk);
  void update(std::size_t chunk, const AdamWStep& step);

  const ModelStateMemory* memory_;
  Device* device_;
  std::unique_ptr<Stream> upload_stream_, update_stream_, download_stream_;
  std::unique_ptr<Event> begin_;
  std::vector<std::unique_ptr<Event>> completed_;  ///< one a group
  std::vector<Chunk> chunks_;
  std::vector<Slot> slots_;
  std::size_t next_upload_ = 0, next_update_ = 0;  ///< chunks
};

}  // namespace llama3d
