#pragma once
// Single-precision GEMMs on OpenBLAS, shared among our own threads.

#include <cstdint>

namespace llama3d::host {

/// Switches OpenBLAS's own threads off and, where the library is older than the CPU and fell back to its
/// slowest kernels, moves it to the best ones this CPU runs (an OPENBLAS_CORETYPE in the environment wins).
void prepare_blas();

/// A row-major operand: element (i, j) at data[i * stride + j], read as its transpose when `transposed`.
struct Operand {
  const float* data;
  std::int64_t stride;
  bool transposed = false;
};

/// c = a b + beta c.  a: (m, k), b: (k, n), c: (m, n) with rows `c_stride` apart; beta 0 ignores what c held.
/// The rows or the columns of c are split among `threads`; any extent may be 0.
void gemm(int threads, std::int64_t m, std::int64_t n, std::int64_t k, Operand a, Operand b, float beta,
          float* c, std::int64_t c_stride);

}  // namespace llama3d::host
