#pragma once
// Checkpoints for the tests: every element's value follows from its tensor and global index, so that any
// reader can tell whether it got the right one.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/convert.hpp"

namespace llama3d::test {

struct SampleTensor {
  std::string dataset;
  DType dtype;
  std::vector<std::int64_t> shape;
};

inline std::vector<SampleTensor> sample_tensors() {
  return {{"/model/model.embed_tokens.weight", DType::fp32, {37, 23}},
          {"/model/model.layers.0.mlp.up_proj.weight", DType::bf16, {64, 8}},
          {"/model/model.norm.weight", DType::fp32, {50}},
          {"/model/model.row", DType::fp32, {1, 7}},
          {"/optimizer/exp_avg/model.norm.weight", DType::bf16, {50}},
          {"/optimizer/exp_avg_sq/model.embed_tokens.weight", DType::fp32, {37, 23}}};
}

/// Whole numbers below 256, which fp32 and bf16 both hold exactly.
inline float sample_value(const SampleTensor& tensor, std::int64_t row, std::int64_t column) {
  const auto salt = static_cast<std::int64_t>(tensor.dataset.size());
  return static_cast<float>((row * 131 + column * 17 + salt * 7) % 251);
}

/// The elements of the rectangles, one after the other, in the tensor's dtype.
inline std::vector<std::byte> sample_data(const SampleTensor& tensor,
                                          const std::vector<Rectangle>& rectangles) {
  std::vector<float> values;
  for (const Rectangle& r : rectangles) {
    for (std::int64_t row = r.row_begin; row < r.row_end; ++row) {
      for (std::int64_t column = r.column_begin; column < r.column_end; ++column) {
        values.push_back(sample_value(tensor, row, column));
      }
    }
  }
  std::vector<std::byte> data(values.size() * size_of(tensor.dtype));
  io::convert_elements(values.data(), DType::fp32, data.data(), tensor.dtype, values.size());
  return data;
}

/// `parts` + 1 ascending cuts of [0, size], some of them equal.
inline std::vector<std::int64_t> random_cuts(std::int64_t size, int parts, std::mt19937& random) {
  std::vector<std::int64_t> cuts = {0, size};
  for (int i = 1; i < parts; ++i)
    cuts.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size + 1)));
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

/// Splits every tensor into blocks by random row and column cuts (as tensor parallelism does), every block
/// into flat slices (as sharded optimizer state), and hands the slices to random ranks. Writes everything but
/// the name.
inline std::filesystem::path write_sample_parts(const std::filesystem::path& final_folder, int ranks,
                                                unsigned seed,
                                                const std::string& attributes = R"({"step": 100})") {
  std::mt19937 random(seed);
  const auto folder = begin_checkpoint(final_folder);
  std::vector<RankFileWriter> writers;
  for (int rank = 0; rank < ranks; ++rank) writers.emplace_back(folder, rank);
  for (const SampleTensor& tensor : sample_tensors()) {
    const Rectangle all = whole(tensor.shape);
    const auto row_cuts = random_cuts(all.rows(), 3, random),
               column_cuts = random_cuts(all.columns(), 2, random);
    for (std::size_t i = 0; i + 1 < row_cuts.size(); ++i) {
      for (std::size_t j = 0; j + 1 < column_cuts.size(); ++j) {
        const Rectangle block{row_cuts[i], row_cuts[i + 1], column_cuts[j], column_cuts[j + 1]};
        const auto slices = random_cuts(block.elements(), 3, random);
        for (std::size_t k = 0; k + 1 < slices.size(); ++k) {
          CheckpointPiece piece{tensor.dataset, tensor.dtype, tensor.shape,
                                slice_of_block(block, slices[k], slices[k + 1]), nullptr};
          const auto data = sample_data(tensor, piece.rectangles);
          piece.data = data.data();
          writers[random() % writers.size()].write(piece);
        }
      }
    }
  }
  std::vector<std::string> manifests;
  for (auto& writer : writers) manifests.push_back(writer.finish());
  write_global_view(folder, manifests, attributes);
  return folder;
}

inline void write_sample(const std::filesystem::path& final_folder, int ranks = 3, unsigned seed = 1,
                         const std::string& attributes = R"({"step": 100})") {
  commit_checkpoint(write_sample_parts(final_folder, ranks, seed, attributes), final_folder);
}

/// Whether `values`, a dense row-major rectangle, are the sample's.
inline bool is_sample(const SampleTensor& tensor, const Rectangle& r, const std::vector<float>& values) {
  std::size_t i = 0;
  for (std::int64_t row = r.row_begin; row < r.row_end; ++row) {
    for (std::int64_t column = r.column_begin; column < r.column_end; ++column) {
      if (i >= values.size() || values[i++] != sample_value(tensor, row, column)) return false;
    }
  }
  return i == values.size();
}

inline bool holds_sample(const CheckpointReader& reader) {
  for (const SampleTensor& tensor : sample_tensors()) {
    const Rectangle all = whole(tensor.shape);
    std::vector<float> values(static_cast<std::size_t>(all.elements()), -1);
    reader.read(tensor.dataset, all, values.data(), DType::fp32);
    if (!is_sample(tensor, all, values)) return false;
  }
  return true;
}

}  // namespace llama3d::test
