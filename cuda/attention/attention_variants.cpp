#include "cuda/attention/attention_variants.hpp"

#include <algorithm>
#include <array>

namespace llama3d::cuda {
namespace {

bool suits_everything(const GpuTraits&, DType, std::int64_t) {
  return true;
}

bool suits_sm80(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return dtype == DType::bf16 && (head_dim == 64 || head_dim == 128) &&
         mma_shared_bytes(static_cast<int>(head_dim)) <= gpu.shared_bytes;
}

bool suits_sm90(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return suits_sm80(gpu, dtype, head_dim) && gpu.architecture == 90 && has_wgmma_code();
}

bool backward_suits_sm90(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return suits_sm90(gpu, dtype, head_dim) && head_dim == 128;
}

void take_nothing(Scratch&, const GpuTraits&, std::int64_t, const AttentionShape&, AttentionCall&) {}

/// Over how many blocks a key-value head's query heads are split: their number divides that of the heads. A
/// key tile is a block, and the first tile of a causal sequence takes twice the mean time. So with fewer than
/// two blocks a multiprocessor some would stand idle, with four and more the sums of several blocks cost more
/// than they even out; between these two halves are fastest (H100, sequences of 4096 and 8192).
int splits_of(const GpuTraits& gpu, std::int64_t rows, const AttentionShape& shape) {
  const std::int64_t group = shape.query_heads / shape.key_value_heads;
  const std::int64_t blocks = shape.key_value_heads * ((rows + wgmma_key_tile - 1) / wgmma_key_tile);
  const double each = static_cast<double>(blocks) / gpu.multiprocessors;
  if (each >= 4) return 1;
  std::int64_t splits = group % 2 == 0 ? 2 : 1;
  while (group % splits != 0 || (splits < group && each * static_cast<double>(splits) < 1.9)) ++splits;
  return static_cast<int>(splits);
}

void take_partial_sums(Scratch& scratch, const GpuTraits& gpu, std::int64_t rows, const AttentionShape& shape,
                       AttentionCall& call) {
  call.splits = splits_of(gpu, rows, shape);
  if (call.splits > 1)
    call.partial = scratch.take<float>(call.splits * rows * shape.key_value_heads * 2 * shape.head_dim,
                                       "attention_backward");
}

/// Best first.
constexpr std::array<AttentionForward, 3> forwards{
    {{"sm90", suits_sm90,
      [](const AttentionCall& call, DType, const GpuTraits& gpu, cudaStream_t stream) {
        attention_forward_wgmma(call, gpu.multiprocessors, stream);
      }},
     {"sm80", suits_sm80,
      [](const AttentionCall& call, DType, const GpuTraits&, cudaStream_t stream) {
        attention_forward_mma(call, stream);
      }},
     {"plain", suits_everything,
      [](const AttentionCall& call, DType dtype, const GpuTraits&, cudaStream_t stream) {
        attention_forward_plain(call, dtype, stream);
      }}}};

constexpr std::array<AttentionBackward, 3> backwards{
    {{"sm90", backward_suits_sm90, take_partial_sums,
      [](const AttentionCall& call, DType, cudaStream_t stream) { attention_backward_wgmma(call, stream); }},
     {"sm80", suits_sm80, take_nothing,
      [](const AttentionCall& call, DType, cudaStream_t stream) { attention_backward_mma(call, stream); }},
     {"plain", suits_everything, take_nothing, attention_backward_plain}}};

template <class Variants>
const auto& first_that_suits(const Variants& variants, const GpuTraits& gpu, DType dtype,
                             std::int64_t head_dim) {
  return *std::find_if(variants.begin(), variants.end(),
                       [&](const auto& variant) { return variant.suits(gpu, dtype, head_dim); });
}

}  // namespace

const AttentionForward& attention_forward_for(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return first_that_suits(forwards, gpu, dtype, head_dim);
}

const AttentionBackward& attention_backward_for(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return first_that_suits(backwards, gpu, dtype, head_dim);
}

}  // namespace llama3d::cuda
