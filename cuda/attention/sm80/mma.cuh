#pragma once
// Tensor-core MMAs of a warp (mma.sync, Ampere and later), the loads that feed them, and asynchronous
// copies from global to shared memory. Fragment layouts are those of the PTX manual, "mma.m16n8k16".

#include <cstdint>

#include "cuda/device/element.cuh"

namespace llama3d::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

/// c (16 x 8) += a (16 x 16) b (16 x 8).
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                            std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

/// 2^x, to 2 units in the last place; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Starts copying 16 bytes; zeros instead when `valid` is false.
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void copy_async_4(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0));
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;");
}
/// Waits until at most N of the committed groups are under way.
template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N));
}

/// A bf16 matrix of Columns (64 or 128) in shared memory. The 16-byte pieces of row r are permuted by r % 8,
/// so that eight rows at one column lie in different banks.
template <int Columns>
struct SharedTile {
  static constexpr int pieces = Columns / 8;

  __device__ __forceinline__ explicit SharedTile(std::uint32_t base) : base(base) {}
  __device__ __forceinline__ std::uint32_t address(int row, int column) const {
    return base + row * (Columns * 2) + (((column / 8) ^ (row % 8)) * 16) + column % 8 * 2;
  }

  /// The same tile, of which the compiler does not know that it is: addresses derived from it are computed
  /// where they are used rather than kept in registers across a loop.
  __device__ __forceinline__ SharedTile anew() const {
    std::uint32_t hidden = base;
    asm volatile("" : "+r"(hidden));
    return SharedTile(hidden);
  }

  // Operands of 16 x 16 (two n tiles for b). `row`, `column`: the block's first element in this tile,
  // multiples of 16; the tile starts at a multiple of its row's bytes.

  /// a[m][k] stored as [m][k].
  __device__ __forceinline__ void load_a(std::uint32_t (&a)[4], int row, int column) const {
    load_matrices(a, block_address(row, column, lane() % 16, lane() / 16));
  }
  /// a[m][k] stored as [k][m]; row counts k.
  __device__ __forceinline__ void load_a_transposed(std::uint32_t (&a)[4], int row, int column) const {
    load_matrices_transposed(a, block_address(row, column, lane() % 8 + lane() / 16 * 8, lane() / 8 % 2));
  }
  /// b[k][n] stored as [n][k]; row counts n. b[0], b[1]: the first n tile; b[2], b[3]: the second.
  __device__ __forceinline__ void load_b(std::uint32_t (&b)[4], int row, int column) const {
    load_matrices(b, block_address(row, column, lane() % 8 + lane() / 16 * 8, lane() / 8 % 2));
  }
  /// b[k][n] stored as [k][n]; row counts k.
  __device__ __forceinline__ void load_b_transposed(std::uint32_t (&b)[4], int row, int column) const {
    load_matrices_transposed(b, block_address(row, column, lane() % 16, lane() / 16));
  }

  /// Starts copying rows [first, first + Rows) of a matrix with rows of `stride` elements, by all Threads of
  /// the block; rows from `end` on become zeros.
  template <int Rows, int Threads>
  __device__ __forceinline__ void copy_rows(const Bf16* matrix, std::int64_t stride, int first,
                                            int end) const {
    constexpr int step = Threads / pieces;  // rows that the block copies at once
    static_assert(Threads % pieces == 0 && step % 8 == 0 && Rows % step == 0);
    const int row = threadIdx.x / pieces, column = threadIdx.x % pieces * 8;
    const std::uint32_t to = address(row, column);
    const Bf16* from = matrix + static_cast<std::int64_t>(first + row) * stride + column;
#pragma unroll
    for (int i = 0; i < Rows / step; ++i) {
      const bool valid = first + row + i * step < end;
      copy_async(to + i * step * Columns * 2, valid ? from : matrix, valid);
      from += step * stride;
    }
  }

  std::uint32_t base;

 private:
  __device__ __forceinline__ static int lane() {
    return threadIdx.x % 32;
  }
  /// Of row `lane_row` and piece `lane_piece` of the block. What depends on the lane is apart from what does
  /// not: one exclusive or a load.
  __device__ __forceinline__ std::uint32_t block_address(int row, int column, int lane_row,
                                                         int lane_piece) const {
    const std::uint32_t of_lane = base + lane_row * (Columns * 2) + ((lane_piece ^ (lane_row % 8)) * 16);
    return (of_lane ^ (column * 2)) + row * (Columns * 2);
  }
};

}  // namespace llama3d::cuda
