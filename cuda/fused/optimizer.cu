// Gradient norm, clipping and AdamW.

#include <cmath>

#include "base/philox.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256;

// --- norm --------------------------------------------------------------------------------------------------

constexpr int norm_threads = 512;
constexpr int most_norm_blocks = 1024;
constexpr int in_flight = 4;

/// Sum of squares of each block's share, in double.
template <int N, class G>
__global__ __launch_bounds__(norm_threads) void squares_kernel(const G* in, std::int64_t n, double* partial) {
  __shared__ double shared[32];
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * norm_threads * N;
  // One sum for each packet under way: additions in double take long to follow one another.
  double sums[in_flight] = {};
  const auto add = [](double& sum, const Packet<N>& packet) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const double value = packet.value[k];
      sum = fma(value, value, sum);
    }
  };
  std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * norm_threads + threadIdx.x) * N;
  for (; at + (in_flight - 1) * step < n; at += in_flight * step) {
    Packet<N> packet[in_flight];
#pragma unroll
    for (int i = 0; i < in_flight; ++i) packet[i] = Packet<N>::load(in + at + i * step);
#pragma unroll
    for (int i = 0; i < in_flight; ++i) add(sums[i], packet[i]);
  }
  for (; at < n; at += step) add(sums[0], Packet<N>::load(in + at));
  double sum = 0;
#pragma unroll
  for (int i = 0; i < in_flight; ++i) sum += sums[i];
  sum = block_reduce(sum, 0.0, Sum(), shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ __launch_bounds__(1024) void add_partials_kernel(const double* partial, int parts, double* sum) {
  __shared__ double shared[32];
  grid_dependency_launch();
  grid_dependency_wait();
  const int part = static_cast<int>(threadIdx.x);
  const double total = block_reduce(part < parts ? partial[part] : 0.0, 0.0, Sum(), shared);
  if (part == 0) *sum += total;
}

__global__ void gradient_scale_kernel(const double* totals, float max_norm, float* scale, float* report) {
  const double targets = totals[2];
  const double norm = sqrt(totals[0]) / targets, loss = totals[1] / targets;
  double factor = 0;
  if (targets > 0 && isfinite(norm) && isfinite(loss)) {
    factor = 1 / targets;
    if (max_norm > 0) factor *= fmin(1.0, max_norm / (norm + 1e-6));
  }
  *scale = static_cast<float>(factor);
  report[0] = static_cast<float>(loss);
  report[1] = static_cast<float>(norm);
}

// --- AdamW -------------------------------------------------------------------------------------------------

/// Constants of a step, rounded once from double.
struct Update {
  float beta1, beta2, keep1, keep2, epsilon;
  float rate;       ///< learning rate / (1 - beta1^step)
  float root_bias;  ///< 1 / sqrt(1 - beta2^step)
  std::uint64_t step;

  explicit Update(const AdamWStep& s)
      : beta1(s.beta1),
        beta2(s.beta2),
        keep1(static_cast<float>(1.0 - static_cast<double>(s.beta1))),
        keep2(static_cast<float>(1.0 - static_cast<double>(s.beta2))),
        epsilon(s.epsilon),
        rate(static_cast<float>(s.learning_rate / (1.0 - std::pow(double{s.beta1}, double(s.step))))),
        root_bias(static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(double{s.beta2}, double(s.step))))),
        step(static_cast<std::uint64_t>(s.step)) {}

  __device__ __forceinline__ void apply(float g, float decay, float& weight, float& average,
                                        float& square) const {
    average = beta1 * average + keep1 * g;
    square = beta2 * square + keep2 * g * g;
    weight = weight * decay - __fdividef(rate * average, __fsqrt_rn(square) * root_bias + epsilon);
  }
};

/// A piece as the kernel has it.
struct Piece {
  std::int64_t parameter_begin, state_begin, elements, shard_begin, first_index;
  std::uint64_t key;
  std::int64_t columns, global_columns;
  float decay;  ///< what weight decay leaves: 1 - learning rate * weight decay
  int first_block;

  /// Global index of element i: Kernels::adamw.
  __device__ __forceinline__ std::uint64_t global_index(std::int64_t i) const {
    const std::int64_t l = shard_begin + i;
    if (columns == global_columns) return static_cast<std::uint64_t>(first_index + l);
    return static_cast<std::uint64_t>(first_index + l / columns * global_columns + l % columns);
  }
};

/// By value in the kernel's parameters: nothing to copy, nothing to keep.
constexpr int most_pieces = 256;
struct Pieces {
  Piece piece[most_pieces];
  int count = 0, blocks = 0;
};

template <class P, class G, class M>
struct States {
  P* parameter;
  float* master;  ///< or null
  const G* gradient;
  M* average;
  M* square;
};

/// Rounds away from zero with the probability of the fraction cut off; 16 random bits decide.
template <class T>
__device__ __forceinline__ float rounded_randomly(float value, std::uint32_t random) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    if (!isfinite(value)) return rounded<Bf16>(value);
    return __uint_as_float((__float_as_uint(value) + (random & 0xffffu)) & 0xffff0000u);
  }
}

/// The piece a block works on: the last that begins at or before it.
__device__ __forceinline__ const Piece& piece_of_block(const Pieces& pieces) {
  int low = 0, high = pieces.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (pieces.piece[middle].first_block <= static_cast<int>(blockIdx.x))
      low = middle;
    else
      high = middle - 1;
  }
  return pieces.piece[low];
}

template <int N, class P, class G, class M>
__global__ __launch_bounds__(threads) void adamw_kernel(const __grid_constant__ Pieces pieces,
                                                        const States<P, G, M> states, const Update update,
                                                        const float* scale) {
  const float factor = *scale;
  if (factor == 0) return;
  const Piece& piece = piece_of_block(pieces);
  const std::int64_t i =
      (static_cast<std::int64_t>(static_cast<int>(blockIdx.x) - piece.first_block) * threads + threadIdx.x) *
      N;
  if (i >= piece.elements) return;
  P* parameter = states.parameter + piece.parameter_begin + i;
  float* master = states.master ? states.master + piece.state_begin + i : nullptr;
  M* const average_at = states.average + piece.state_begin + i;
  M* const square_at = states.square + piece.state_begin + i;
  auto gradient = Packet<N>::load(states.gradient + piece.parameter_begin + i);
  auto average = Packet<N>::load(average_at), square = Packet<N>::load(square_at);
  auto weight = master ? Packet<N>::load(master) : Packet<N>::load(parameter);
#pragma unroll
  for (int k = 0; k < N; ++k)
    update.apply(gradient.value[k] * factor, piece.decay, weight.value[k], average.value[k], square.value[k]);

  constexpr bool rounds_moments = !std::is_same_v<M, float>;
  const bool rounds_weight = !std::is_same_v<P, float> && !master;
  if (master) weight.store(master);
  if (rounds_moments || rounds_weight) {
    const std::uint64_t index = piece.global_index(i);
    // With several elements a thread, the first has an even index: a block of bits serves two of them.
#pragma unroll
    for (int k = 0; k < N; k += 2) {
      const PhiloxBlock bits = philox4x32(piece.key, (index + k) / 2, update.step);
#pragma unroll
      for (int j = 0; j < (N > 1 ? 2 : 1); ++j) {
        const bool odd = N > 1 ? j == 1 : index % 2 == 1;
        const std::uint32_t first = odd ? bits[2] : bits[0], second = odd ? bits[3] : bits[1];
        average.value[k + j] = rounded_randomly<M>(average.value[k + j], first);
        square.value[k + j] = rounded_randomly<M>(square.value[k + j], first >> 16);
        if (rounds_weight) weight.value[k + j] = rounded_randomly<P>(weight.value[k + j], second);
      }
    }
  }
  average.store(average_at);
  square.store(square_at);
  weight.store(parameter);
}

/// Whether a piece can be updated in packets: aligned, and each packet inside one row at an even index.
bool has_packets(const AdamWPiece& p) {
  const auto whole = [](std::int64_t n) { return n % packet_size == 0; };
  return whole(p.elements) && whole(p.parameter_begin) && whole(p.state_begin) && whole(p.shard_begin) &&
         whole(p.columns) && p.first_column % 2 == 0 && p.global_columns % 2 == 0;
}

/// One-column parameters (norms) count as a row: their elements are neighbours all the same.
AdamWPiece as_row(AdamWPiece p) {
  if (p.columns == 1 && p.global_columns == 1 && p.first_column == 0) {
    p.shard_begin += p.first_row;
    p.first_row = 0;
    const std::int64_t width = divide_up<std::int64_t>(p.shard_begin + p.elements, packet_size) * packet_size;
    p.columns = p.global_columns = width;
  }
  return p;
}

Piece device_piece(const AdamWPiece& p, const AdamWStep& step, int first_block) {
  return {.parameter_begin = p.parameter_begin,
          .state_begin = p.state_begin,
          .elements = p.elements,
          .shard_begin = p.shard_begin,
          .first_index = p.first_row * p.global_columns + p.first_column,
          .key = p.rounding_key,
          .columns = p.columns,
          .global_columns = p.global_columns,
          .decay = static_cast<float>(1.0 - static_cast<double>(step.learning_rate) * p.weight_decay),
          .first_block = first_block};
}

}  // namespace

std::size_t optimizer_scratch() {
  return most_norm_blocks * sizeof(double);
}

void CudaKernels::do_squared_norm(const Tensor& in, const Tensor& sum, Stream& stream) {
  const std::int64_t n = in.elements();
  if (n == 0) return;
  Scratch scratch(workspace_);
  double* partial = scratch.take<double>(most_norm_blocks, "squared_norm");
  with_type(in.dtype(), [&]<class G>() {
    with_packet(n, {&in}, [&]<int N>() {
      const auto blocks = std::min<unsigned>(blocks_for(n, std::int64_t{norm_threads} * N * in_flight),
                                             std::min(most_norm_blocks, 4 * gpu_.multiprocessors));
      launch_dependent(squares_kernel<N, G>, blocks, norm_threads, handle_of(stream), elements<G>(in), n,
                       partial);
      launch_dependent(add_partials_kernel, 1, 1024, handle_of(stream), partial, static_cast<int>(blocks),
                       elements<double>(sum));
    });
  });
  check_launch("squared_norm", in.shape());
}

void CudaKernels::do_gradient_scale(const Tensor& totals, float max_norm, const Tensor& scale,
                                    const Tensor& report, Stream& stream) {
  gradient_scale_kernel<<<1, 1, 0, handle_of(stream)>>>(elements<double>(totals), max_norm,
                                                        elements<float>(scale), elements<float>(report));
  check_launch("gradient_scale", totals.shape());
}

void CudaKernels::do_adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
                           const Tensor& master, const Tensor& gradient, const Tensor& exp_avg,
                           const Tensor& exp_avg_sq, const Tensor& scale, Stream& stream) {
  const Update update(step);
  with_type(parameter.dtype(), [&]<class P>() {
    with_type(gradient.dtype(), [&]<class G>() {
      with_type(exp_avg.dtype(), [&]<class M>() {
        const States<P, G, M> states{elements<P>(parameter), master ? elements<float>(master) : nullptr,
                                     elements<G>(gradient), elements<M>(exp_avg), elements<M>(exp_avg_sq)};
        const auto update_all = [&]<int N>(bool packets) {
          Pieces batch;
          const auto flush = [&] {
            if (batch.count == 0) return;
            adamw_kernel<N><<<static_cast<unsigned>(batch.blocks), threads, 0, handle_of(stream)>>>(
                batch, states, update, elements<float>(scale));
            batch.count = batch.blocks = 0;
          };
          for (const AdamWPiece& given : pieces) {
            const AdamWPiece piece = as_row(given);
            if (piece.elements == 0 || has_packets(piece) != packets) continue;
            batch.piece[batch.count++] = device_piece(piece, step, batch.blocks);
            batch.blocks += static_cast<int>(divide_up<std::int64_t>(piece.elements, threads * N));
            if (batch.count == most_pieces) flush();
          }
          flush();
        };
        update_all.template operator()<packet_size>(true);
        update_all.template operator()<1>(false);
      });
    });
  });
  check_launch("adamw", parameter.shape());
}

}  // namespace llama3d::cuda
