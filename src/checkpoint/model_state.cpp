#include "checkpoint/model_state.hpp"

#include <algorithm>

#include "base/philox.hpp"
#include "checkpoint/checkpoint_contents.hpp"
#include "compute/kernels.hpp"

namespace llama3d {
namespace {

std::vector<std::int64_t> global_shape(const Parameter& p) {
  if (p.shape.rank() == 1) return {p.shape[0]};
  return {p.shape[0], p.shape[1]};
}

/// The shard's rows that exist, in global coordinates.
Rectangle existing_block(const Parameter& p) {
  return {p.first_row, p.first_row + p.existing_rows, p.first_column, p.first_column + p.columns};
}

}  // namespace

std::vector<Rectangle> rectangles_of(const OwnedPiece& piece) {
  return slice_of_block(existing_block(*piece.parameter), piece.shard_begin(),
                        piece.shard_begin() + piece.elements);
}

ModelState::ModelState(const ParameterTable& table, const std::vector<OwnedSlice>& slices,
                       const ProcessGrid& grid, const ModelStateMemory& memory, Device& device,
                       Stream& stream)
    : table_(&table),
      slices_(slices),
      pieces_(owned_pieces(table, slices, grid)),
      memory_(&memory),
      device_(&device),
      kernels_(&device.kernels()),
      stream_(&stream),
      staging_(nullptr, [](void*) {}) {
  std::int64_t largest = 0;
  for (const OwnedPiece& piece : pieces_) largest = std::max(largest, piece.elements);
  staging_ = device.allocate_host(static_cast<std::size_t>(largest) * sizeof(float));
}

Tensor ModelState::weights(const OwnedPiece& piece) const {
  return memory_->adamw.master
             ? moment(memory_->adamw.master, piece)
             : memory_->parameters.slice(piece.arena_begin, piece.arena_begin + piece.elements);
}

Tensor ModelState::moment(const Tensor& arena, const OwnedPiece& piece) const {
  return arena.slice(piece.state_begin, piece.state_begin + piece.elements);
}

void ModelState::clear() {
  for (const Tensor& tensor : {memory_->parameters, memory_->gradients, memory_->adamw.master,
                               memory_->adamw.exp_avg, memory_->adamw.exp_avg_sq})
    if (tensor) kernels_->fill_zero(tensor, *stream_);
}

void ModelState::round_master() {
  if (!memory_->adamw.master) return;
  for (const OwnedSlice& slice : slices_)
    kernels_->copy(memory_->adamw.master.slice(slice.state_begin, slice.state_begin + slice.elements()),
                   memory_->parameters.slice(slice.begin, slice.end), *stream_);
}

void ModelState::initialize(std::uint64_t seed, double standard_deviation) {
  clear();
  for (const OwnedPiece& piece : pieces_) {
    const Parameter& p = *piece.parameter;
    const Tensor all = weights(piece);
    if (p.shape.rank() == 1) {
      if (!p.is_norm()) continue;  // a bias, which is 0 already
      if (all.dtype() == DType::fp32)
        std::fill_n(static_cast<float*>(staging_.get()), piece.elements, 1.0f);
      else
        std::fill_n(static_cast<bf16*>(staging_.get()), piece.elements, bf16(1.0f));
      device_->upload(all, staging_.get(), *stream_);
      stream_->synchronize();
      continue;
    }
    std::int64_t done = 0;
    for (const Rectangle& r : rectangles_of(piece)) {
      kernels_->fill_normal(all.slice(done, done + r.elements()).reshape({r.rows(), r.columns()}),
                            philox_key(seed, p.name), r.row_begin, r.column_begin, p.global_columns(),
                            static_cast<float>(standard_deviation), *stream_);
      done += r.elements();
    }
  }
  round_master();
}

void ModelState::save(RankFileWriter& file) {
  const auto write = [&](const std::string& prefix, const OwnedPiece& piece, const Tensor& values) {
    device_->download(staging_.get(), values, *stream_);
    stream_->synchronize();
    file.write({prefix + piece.parameter->name, values.dtype(), global_shape(*piece.parameter),
                rectangles_of(piece), staging_.get()});
  };
  for (const OwnedPiece& piece : pieces_) {
    if (!piece.writes) continue;
    write("/model/", piece, weights(piece));
    write("/optimizer/exp_avg/", piece, moment(memory_->adamw.exp_avg, piece));
    write("/optimizer/exp_avg_sq/", piece, moment(memory_->adamw.exp_avg_sq, piece));
  }
}

void ModelState::read(const ReadRectangle& read_rectangle, const OwnedPiece& piece,
                      const Tensor& destination) {
  auto* next = static_cast<std::byte*>(staging_.get());
  for (const Rectangle& r : rectangles_of(piece)) {
    read_rectangle(r, next, destination.dtype());
    next += static_cast<std::size_t>(r.elements()) * size_of(destination.dtype());
  }
  device_->upload(destination, staging_.get(), *stream_);
  stream_->synchronize();
}

void ModelState::load_states(const CheckpointContents& checkpoint) {
  clear();
  const auto read_back = [&](const std::string& prefix, const OwnedPiece& piece, const Tensor& destination) {
    const std::string name = prefix + piece.parameter->name;
    read([&](const Rectangle& r, void* out, DType dtype) { checkpoint.read_dataset(name, r, out, dtype); },
         piece, destination);
  };
  for (const OwnedPiece& piece : pieces_) {
    read_back("/model/", piece, weights(piece));
    read_back("/optimizer/exp_avg/", piece, moment(memory_->adamw.exp_avg, piece));
    read_back("/optimizer/exp_avg_sq/", piece, moment(memory_->adamw.exp_avg_sq, piece));
  }
  round_master();
}

void ModelState::load_weights(const WeightSource& source) {
  clear();
  for (const OwnedPiece& piece : pieces_) {
    const std::string& name = piece.parameter->name;
    read([&](const Rectangle& r, void* out, DType dtype) { source.read(name, r, out, dtype); }, piece,
         weights(piece));
  }
  round_master();
}

}  // namespace llama3d
