#include "compute/host/blas.hpp"

#include <cblas.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "base/error.hpp"
#include "compute/host/cpu_features.hpp"
#include "compute/host/parallel.hpp"

// Entry points of OpenBLAS beyond CBLAS, weak: a build of it without run-time dispatch lacks the last two.
extern "C" {
void openblas_set_num_threads(int) __attribute__((weak));
char* openblas_get_corename() __attribute__((weak));
void gotoblas_dynamic_init() __attribute__((weak));
void gotoblas_dynamic_quit() __attribute__((weak));
}

namespace llama3d::host {
namespace {

/// The best kernels for this CPU by OpenBLAS's name, or null when even AVX2 is missing.
const char* best_core() {
  if (cpu_supports("avx512f") && cpu_supports("avx512bw") && cpu_supports("avx512dq") &&
      cpu_supports("avx512vl")) {
    return cpu_supports("avx512bf16") ? "Cooperlake" : "SkylakeX";
  }
  return cpu_supports("avx2") && cpu_supports("fma") ? "Haswell" : nullptr;
}

/// A library that does not know a new CPU's model number runs SSE3 code on it: a fifth of the speed.
void leave_fallback_core() {
  if (!openblas_get_corename || !gotoblas_dynamic_init || !gotoblas_dynamic_quit) return;
  static constexpr const char* variable = "OPENBLAS_CORETYPE";
  static constexpr std::array<std::string_view, 4> before_avx2 = {"Prescott", "Core2", "Nehalem",
                                                                  "Sandybridge"};
  const std::string_view core = openblas_get_corename();
  const char* better = best_core();
  if (!better || std::getenv(variable) ||
      std::find(before_avx2.begin(), before_avx2.end(), core) == before_avx2.end()) {
    return;
  }
  setenv(variable, better, 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  unsetenv(variable);
}

blasint extent(std::int64_t value) {
  LLAMA3D_EXPECT(value <= std::numeric_limits<blasint>::max(), "matrix extent {} beyond this BLAS's integers",
                 value);
  return static_cast<blasint>(value);
}

}  // namespace

void prepare_blas() {
  static const bool done = [] {
    leave_fallback_core();
    if (openblas_set_num_threads) openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

void gemm(int threads, std::int64_t m, std::int64_t n, std::int64_t k, Operand a, Operand b, float beta,
          float* c, std::int64_t c_stride) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (beta == 0) {
      for (std::int64_t i = 0; i < m; ++i) std::fill_n(c + i * c_stride, n, 0.0f);
    }
    return;
  }
  const blasint inner = extent(k), a_stride = extent(a.stride), b_stride = extent(b.stride);
  const blasint out_stride = extent(c_stride);
  extent(std::max(m, n));
  const auto part = [&](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    // Decoding has one row: then the weights are read once as they lie, and not packed.
    if (m == 1 && b.transposed && !a.transposed) {
      // Some versions scale what was there, NaN and all, even by 0.
      if (beta == 0) std::fill_n(c + column, columns, 0.0f);
      cblas_sgemv(CblasRowMajor, CblasNoTrans, static_cast<blasint>(columns), inner, 1.0f,
                  b.data + column * b.stride, b_stride, a.data, 1, beta, c + column, 1);
      return;
    }
    cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                b.transposed ? CblasTrans : CblasNoTrans, static_cast<blasint>(rows),
                static_cast<blasint>(columns), inner, 1.0f, a.data + (a.transposed ? row : row * a.stride),
                a_stride, b.data + (b.transposed ? column * b.stride : column), b_stride, beta,
                c + row * c_stride + column, out_stride);
  };
  // Parts are multiples of a cache line of c, and not so small that packing the operands dominates.
  constexpr std::int64_t line = 16, least_lines = 4;
  const bool by_rows = m >= n;
  const std::int64_t whole = by_rows ? m : n;
  const int team = m * n * k < 64 * 64 * 64 ? 1 : threads;
  parallel_ranges(team, (whole + line - 1) / line, least_lines, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * line, count = std::min(whole, end * line) - first;
    if (by_rows) {
      part(first, count, 0, n);
    } else {
      part(0, m, first, count);
    }
  });
}

}  // namespace llama3d::host
