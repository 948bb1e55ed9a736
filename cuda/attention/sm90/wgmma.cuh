#pragma once
// Tensor-core MMAs of a warpgroup (wgmma, sm_90a), and the bulk copies of tiles that feed them. Layouts
// are those of the PTX manual, "Asynchronous warpgroup level matrix instructions" and "Tensor memory access".

#include <cstdint>

#include "cuda/device/element.cuh"

namespace llama3d::cuda {

constexpr int warpgroup_threads = 128;

/// A bf16 tile in shared memory as bulk copies write it: slabs of 64 columns side by side, a slab's rows one
/// after another, the 16-byte pieces of row r permuted by r % 8. Begins at a multiple of 1024 bytes.
struct SlabTile {
  std::uint32_t base;
  int rows;
  static constexpr int slab_columns = 64, row_bytes = 2 * slab_columns, group_bytes = 8 * row_bytes;

  __device__ __forceinline__ std::uint32_t slab(int column) const {
    return base + column / slab_columns * rows * row_bytes;
  }

  /// Rows are m or n of the MMA, columns k. `row` is a multiple of 8, `column` of 16.
  __device__ __forceinline__ std::uint64_t rows_of_operand(int row, int column) const {
    return describe(slab(column) + row * row_bytes + column % slab_columns * 2, 1);
  }
  /// Rows are k of the MMA, columns m or n. `row` is a multiple of 16, `column` of 64.
  __device__ __forceinline__ std::uint64_t columns_of_operand(int row, int column = 0) const {
    return describe(slab(column) + row * row_bytes, rows * row_bytes / 16);
  }
  /// Of a 16-byte piece; `column` is a multiple of 8.
  __device__ __forceinline__ std::uint32_t piece(int row, int column) const {
    return slab(column) + row * row_bytes + ((column % slab_columns / 8) ^ (row % 8)) * 16;
  }

 private:
  /// `leading`: 16-byte units between slabs, where they count. Groups of 8 rows follow each other; pieces are
  /// permuted over 128 bytes.
  __device__ __forceinline__ static std::uint64_t describe(std::uint32_t address, std::uint32_t leading) {
    return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | static_cast<std::uint64_t>(leading) << 16 |
           static_cast<std::uint64_t>(group_bytes / 16) << 32 | std::uint64_t{1} << 62;
  }
};

/// Before the first MMA on registers that this warpgroup has written since. Shared memory takes
/// fence_view_async_shared().
__device__ __forceinline__ void warpgroup_arrive() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void warpgroup_commit_batch() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most N of the committed groups of MMAs are under way.
template <int N>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/// Registers that MMAs under way read or write stay where they are until here.
template <int N>
__device__ __forceinline__ void warpgroup_fence_operand(float (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int N>
__device__ __forceinline__ void warpgroup_fence_operand(std::uint32_t (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

#define LLAMA3D_8(d, i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define LLAMA3D_32(d, i) LLAMA3D_8(d, i), LLAMA3D_8(d, i + 8), LLAMA3D_8(d, i + 16), LLAMA3D_8(d, i + 24)
#define LLAMA3D_FIRST_32                                                                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%" \
  "28,"                                                                                                     \
  "%29,%30,%31"
#define LLAMA3D_NEXT_32                                                                                      \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63"

/// d (64 x 128) = a (64 x 16) b (16 x 128), plus d when `add`; a and b lie in shared memory, k along their
/// rows.
__device__ __forceinline__ void wgmma(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LLAMA3D_FIRST_32 "," LLAMA3D_NEXT_32
      "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : LLAMA3D_32(d, 0), LLAMA3D_32(d, 32)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
/// The same with a in registers and n along b's rows.
__device__ __forceinline__ void wgmma(float (&d)[64], const std::uint32_t* a, std::uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" LLAMA3D_FIRST_32 "," LLAMA3D_NEXT_32
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
      : LLAMA3D_32(d, 0), LLAMA3D_32(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}
/// The same for d (64 x 64).
__device__ __forceinline__ void wgmma(float (&d)[32], const std::uint32_t* a, std::uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LLAMA3D_FIRST_32
      "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
      : LLAMA3D_32(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

/// d (64 x 64) = a b, both in shared memory: k along their rows, or else m along a's and n along b's.
template <bool k_along_rows>
__device__ __forceinline__ void wgmma(float (&d)[32], std::uint64_t a, std::uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" LLAMA3D_FIRST_32
      "}, %32, %33, p, 1, 1, %35, %35;\n}"
      : LLAMA3D_32(d, 0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(k_along_rows ? 0 : 1));
}

#undef LLAMA3D_8
#undef LLAMA3D_32
#undef LLAMA3D_FIRST_32
#undef LLAMA3D_NEXT_32

/// Registers that each thread of this warpgroup may use from here on.
template <int N>
__device__ __forceinline__ void warpgroup_reg_alloc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void warpgroup_reg_dealloc() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/// A barrier in shared memory whose phases end with `arrivals`, and with the bytes that were announced.
struct MBarrier {
  std::uint32_t address;

  __device__ __forceinline__ void initialize(int arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
  }
  __device__ __forceinline__ void arrive() const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
  }
  /// Arrives once for the warp, behind what all its threads have read and written.
  __device__ __forceinline__ void arrive_as_warp() const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive();
  }
  __device__ __forceinline__ void arrive_and_expect(int bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes)
                 : "memory");
  }
  /// Arrives when the cp.async copies that this thread has started are done; of the phase's arrivals.
  __device__ __forceinline__ void arrive_with_copies() const {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address) : "memory");
  }
  /// Until phase `n`, counted from 0, has ended; the one before is taken for ended, so no later one may have.
  __device__ __forceinline__ void wait(int n) const {
    asm volatile(
        "{\n.reg .pred done;\nagain%=:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over%=;\nbra again%=;\nover%=:\n}" ::"r"(address),
        "r"(n & 1)
        : "memory");
  }
};
/// After initializing barriers, by the thread that did.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Starts the copy of a box of a matrix (tensor_map.hpp), from `column` and `row` on, which `barrier` counts.
/// What lies outside the matrix becomes zero.
__device__ __forceinline__ void tma_load_2d(std::uint32_t to, const void* map, int column, int row,
                                            MBarrier barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier.address)
      : "memory");
}

/// Lets ordinary writes of this thread to shared memory be seen by later MMAs, behind a barrier.
__device__ __forceinline__ void fence_view_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Barrier `id` of a block: waits for `threads` arrivals with this one, or only arrives.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace llama3d::cuda
