// The embedding of a vocabulary shard.

#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256;
/// Columns' packets of a block that sums gradients: narrow, so that long runs of one id spread over many
/// blocks.
constexpr int sum_threads = 32;

template <int N, class T>
__global__ __launch_bounds__(threads) void forward_kernel(const std::int32_t* ids, const T* table,
                                                          std::int64_t first_id, std::int64_t vocabulary,
                                                          T* out, int columns) {
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t row = ids[blockIdx.x] - first_id;
  const bool here = row >= 0 && row < vocabulary;
  T* to = out + static_cast<std::int64_t>(blockIdx.x) * columns;
  for (int c = threadIdx.x * N; c < columns; c += threads * N) {
    Packet<N> packet{};
    if (here) packet = Packet<N>::load(table + row * columns + c);
    packet.store(to + c);
  }
}

/// Keys to sort rows by: the shard's row of the id, or `vocabulary` when the id is not in the shard.
__global__ __launch_bounds__(threads) void key_kernel(const std::int32_t* ids, std::int64_t first_id,
                                                      int vocabulary, int rows, std::uint32_t* keys,
                                                      std::int32_t* order) {
  const int t = blockIdx.x * threads + threadIdx.x;
  if (t >= rows) return;
  const std::int64_t row = ids[t] - first_id;
  keys[t] = static_cast<std::uint32_t>(row >= 0 && row < vocabulary ? row : vocabulary);
  order[t] = t;
}

/// The block at the first of a run of equal keys adds the run's rows, in order, to a table row.
template <int N, class T, class G>
__global__ __launch_bounds__(sum_threads) void sum_kernel(const std::uint32_t* keys,
                                                          const std::int32_t* order, int rows, int vocabulary,
                                                          const T* dout, G* dtable, int columns) {
  const int first = blockIdx.x, c = (blockIdx.y * sum_threads + threadIdx.x) * N;
  const std::uint32_t key = keys[first];
  if (key == static_cast<std::uint32_t>(vocabulary) || (first > 0 && keys[first - 1] == key) || c >= columns)
    return;
  G* total = dtable + static_cast<std::int64_t>(key) * columns + c;
  auto sum = Packet<N>::load(total);
#pragma unroll 4
  for (int i = first; i < rows && keys[i] == key; ++i) {
    const auto gradient = Packet<N>::load(dout + static_cast<std::int64_t>(order[i]) * columns + c);
#pragma unroll
    for (int k = 0; k < N; ++k) sum.value[k] += gradient.value[k];
  }
  sum.store(total);
}

/// Rows sorted by key, equal keys in their order.
struct SortedRows {
  std::uint32_t *keys, *sorted_keys;
  std::int32_t *order, *sorted_order;
  std::byte* temporary;
  std::size_t temporary_bytes = 0;

  SortedRows(Scratch& scratch, std::int64_t rows)
      : keys(scratch.take<std::uint32_t>(rows, "embedding_backward")),
        sorted_keys(scratch.take<std::uint32_t>(rows, "embedding_backward")),
        order(scratch.take<std::int32_t>(rows, "embedding_backward")),
        sorted_order(scratch.take<std::int32_t>(rows, "embedding_backward")) {
    check(cub::DeviceRadixSort::SortPairs(nullptr, temporary_bytes, keys, sorted_keys, order, sorted_order,
                                          static_cast<int>(rows)),
          "asking for the space that sorting takes");
    temporary = scratch.take<std::byte>(static_cast<std::int64_t>(temporary_bytes), "embedding_backward");
  }
};

}  // namespace

std::size_t embedding_scratch(const WorkspaceRequest& request) {
  Scratch scratch;
  SortedRows(scratch, request.tokens);
  return scratch.used();
}

void CudaKernels::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_id,
                                       const Tensor& out, Stream& stream) {
  if (out.elements() == 0) return;
  with_type(table.dtype(), [&]<class T>() {
    with_packet(out.columns(), {&table, &out}, [&]<int N>() {
      launch_dependent(forward_kernel<N, T>, static_cast<unsigned>(out.rows()), threads, handle_of(stream),
                       elements<std::int32_t>(ids), elements<T>(table), first_id, table.rows(),
                       elements<T>(out), static_cast<int>(out.columns()));
    });
  });
  check_launch("embedding_forward", out.shape());
}

void CudaKernels::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_id,
                                        const Tensor& dtable, Stream& stream) {
  const int rows = static_cast<int>(dout.rows()), columns = static_cast<int>(dout.columns());
  const int vocabulary = static_cast<int>(dtable.rows());
  if (rows == 0 || columns == 0) return;
  Scratch scratch(workspace_);
  SortedRows sorted(scratch, rows);
  key_kernel<<<blocks_for(rows, threads), threads, 0, handle_of(stream)>>>(
      elements<std::int32_t>(ids), first_id, vocabulary, rows, sorted.keys, sorted.order);
  check(cub::DeviceRadixSort::SortPairs(sorted.temporary, sorted.temporary_bytes, sorted.keys,
                                        sorted.sorted_keys, sorted.order, sorted.sorted_order, rows, 0,
                                        std::bit_width(static_cast<unsigned>(vocabulary)), handle_of(stream)),
        fmt::format("sorting {} token ids", rows));
  with_type(dout.dtype(), [&]<class T>() {
    with_type(dtable.dtype(), [&]<class G>() {
      with_packet(columns, {&dout, &dtable}, [&]<int N>() {
        const dim3 grid(static_cast<unsigned>(rows), blocks_for(columns, sum_threads * N));
        sum_kernel<N><<<grid, sum_threads, 0, handle_of(stream)>>>(sorted.sorted_keys, sorted.sorted_order,
                                                                   rows, vocabulary, elements<T>(dout),
                                                                   elements<G>(dtable), columns);
      });
    });
  });
  check_launch("embedding_backward", dout.shape());
}

}  // namespace llama3d::cuda
