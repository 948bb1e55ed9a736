#include "optim/offloaded_update.hpp"

#include <algorithm>

namespace llama3d {
namespace {

/// What of a piece lies in the elements [begin, end) of the state, by its place there.
AdamWPiece part_of(AdamWPiece piece, std::int64_t begin, std::int64_t end) {
  const std::int64_t first = std::max(begin, piece.state_begin);
  const std::int64_t last = std::min(end, piece.state_begin + piece.elements);
  const std::int64_t skipped = first - piece.state_begin;
  piece.elements = std::max<std::int64_t>(0, last - first);
  piece.parameter_begin += skipped;
  piece.shard_begin += skipped;
  piece.state_begin = first - begin;
  return piece;
}

/// The tensors of a state that has them.
std::vector<Tensor> tensors_of(const AdamWState& state) {
  if (state.master) return {state.master, state.exp_avg, state.exp_avg_sq};
  return {state.exp_avg, state.exp_avg_sq};
}

}  // namespace

OffloadedUpdate::OffloadedUpdate(const std::vector<OwnedSlice>& slices, const std::vector<std::size_t>& order,
                                 const std::vector<AdamWPiece>& pieces, const ModelStateMemory& memory,
                                 Device& device)
    : memory_(&memory),
      device_(&device),
      upload_stream_(device.create_stream(StreamPriority::normal)),
      update_stream_(device.create_stream(StreamPriority::normal)),
      download_stream_(device.create_stream(StreamPriority::normal)),
      begin_(device.create_event()) {
  const std::int64_t chunk = memory.slots.front().exp_avg.elements();
  for (const std::size_t group : order) {
    const OwnedSlice& slice = slices[group];
    for (std::int64_t done = 0; done < slice.elements(); done += chunk)
      add_chunk(slice, pieces, slice.state_begin + done,
                slice.state_begin + std::min(slice.elements(), done + chunk));
  }
  for (const AdamWState& state : memory.slots)
    slots_.push_back({state, device.create_event(), device.create_event(), device.create_event()});
  for (std::size_t group = 0; group < slices.size(); ++group) completed_.push_back(device.create_event());
}

void OffloadedUpdate::add_chunk(const OwnedSlice& slice, const std::vector<AdamWPiece>& pieces,
                                std::int64_t begin, std::int64_t end) {
  Chunk chunk{static_cast<std::size_t>(slice.group), begin, end, {}};
  for (const AdamWPiece& piece : pieces)
    if (const AdamWPiece part = part_of(piece, begin, end); part.elements > 0) chunk.pieces.push_back(part);
  chunks_.push_back(std::move(chunk));
}

void OffloadedUpdate::prefetch() {
  while (next_upload_ < std::min(chunks_.size(), next_update_ + slots_.size())) upload(next_upload_++);
}

void OffloadedUpdate::begin(Stream& gradients) {
  gradients.record(*begin_);
  update_stream_->wait(*begin_);
}

std::size_t OffloadedUpdate::update_next_group(const AdamWStep& step) {
  const std::size_t group = chunks_[next_update_].group;
  while (next_update_ < chunks_.size() && chunks_[next_update_].group == group) {
    prefetch();
    update(next_update_, step);
    download(next_update_++);
  }
  if (next_update_ == chunks_.size()) next_upload_ = next_update_ = 0;
  return group;
}

void OffloadedUpdate::upload(std::size_t chunk) {
  const std::int64_t begin = chunks_[chunk].begin, end = chunks_[chunk].end;
  Slot& slot = slot_of(chunk);
  // What the slot held before is back in host memory then, and with it all earlier chunks.
  upload_stream_->wait(*slot.emptied);
  const auto from = tensors_of(memory_->adamw.slice(begin, end));
  const auto to = tensors_of(slot.state.slice(0, end - begin));
  for (std::size_t i = 0; i < from.size(); ++i) device_->upload(to[i], from[i].data(), *upload_stream_);
  upload_stream_->record(*slot.filled);
}

void OffloadedUpdate::update(std::size_t chunk, const AdamWStep& step) {
  Slot& slot = slot_of(chunk);
  update_stream_->wait(*slot.filled);
  device_->kernels().adamw(step, chunks_[chunk].pieces, memory_->parameters, slot.state.master,
                           memory_->gradients, slot.state.exp_avg, slot.state.exp_avg_sq, memory_->scale,
                           *update_stream_);
  update_stream_->record(*slot.updated);
}

void OffloadedUpdate::download(std::size_t chunk) {
  Slot& slot = slot_of(chunk);
  const std::int64_t begin = chunks_[chunk].begin, end = chunks_[chunk].end;
  download_stream_->wait(*slot.updated);
  const auto from = tensors_of(slot.state.slice(0, end - begin));
  const auto to = tensors_of(memory_->adamw.slice(begin, end));
  for (std::size_t i = 0; i < from.size(); ++i) device_->download(to[i].data(), from[i], *download_stream_);
  download_stream_->record(*slot.emptied);
}

void OffloadedUpdate::wait_for_downloads() {
  for (const Slot& slot : slots_) update_stream_->wait(*slot.emptied);
}

}  // namespace llama3d
