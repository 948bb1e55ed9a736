// GEMMs. BLAS knows fp32: bf16 operands are widened into the workspace, activations a chunk of rows
// at a time so that they stay in cache, and results are rounded once.

#include <algorithm>

#include "compute/host/blas.hpp"
#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {
namespace {

void widen_all(int threads, const bf16* in, float* out, std::int64_t n) {
  parallel_ranges(threads, n, elements_grain, [&](std::int64_t begin, std::int64_t end) {
    widen_row(in + begin, out + begin, end - begin);
  });
}

void narrow_all(int threads, const float* in, bf16* out, std::int64_t n) {
  parallel_ranges(threads, n, elements_grain, [&](std::int64_t begin, std::int64_t end) {
    narrow_row(in + begin, out + begin, end - begin);
  });
}

/// out (T, columns) = in (T, inner) times `weight`, whose storage is `weight_columns` wide: x w^T or dy w.
void project(int threads, Scratch scratch, const Tensor& in, const Tensor& weight, bool transposed,
             const Tensor& out) {
  const std::int64_t rows = in.rows(), inner = in.columns(), columns = out.columns();
  const std::int64_t stride = weight.columns();
  if (in.dtype() == DType::fp32) {
    gemm(threads, rows, columns, inner, {elements<float>(in), inner},
         {elements<float>(weight), stride, transposed}, 0.0f, elements<float>(out), columns);
    return;
  }
  const std::int64_t chunk = std::min(rows, matmul_chunk);
  float* wide_weight = scratch.take(weight.elements(), "linear");
  float* wide_in = scratch.take(chunk * inner, "linear");
  float* wide_out = scratch.take(chunk * columns, "linear");
  widen_all(threads, elements<bf16>(weight), wide_weight, weight.elements());
  for (std::int64_t row = 0; row < rows; row += chunk) {
    const std::int64_t count = std::min(chunk, rows - row);
    widen_all(threads, elements<bf16>(in) + row * inner, wide_in, count * inner);
    gemm(threads, count, columns, inner, {wide_in, inner}, {wide_weight, stride, transposed}, 0.0f, wide_out,
         columns);
    narrow_all(threads, wide_out, elements<bf16>(out) + row * columns, count * columns);
  }
}

/// sum (N, K) = dy^T x + beta sum, in fp32.
void correlate(int threads, Scratch scratch, const Tensor& dy, const Tensor& x, float beta, float* sum) {
  const std::int64_t rows = dy.rows(), n = dy.columns(), k = x.columns();
  if (dy.dtype() == DType::fp32) {
    gemm(threads, n, k, rows, {elements<float>(dy), n, true}, {elements<float>(x), k}, beta, sum, k);
    return;
  }
  const std::int64_t chunk = std::min(rows, matmul_chunk);
  float* wide_dy = scratch.take(chunk * n, "linear_backward_weight");
  float* wide_x = scratch.take(chunk * k, "linear_backward_weight");
  for (std::int64_t row = 0; row < rows; row += chunk) {
    const std::int64_t count = std::min(chunk, rows - row);
    widen_all(threads, elements<bf16>(dy) + row * n, wide_dy, count * n);
    widen_all(threads, elements<bf16>(x) + row * k, wide_x, count * k);
    gemm(threads, n, k, count, {wide_dy, n, true}, {wide_x, k}, row == 0 ? beta : 1.0f, sum, k);
  }
}

}  // namespace

std::int64_t matmul_scratch(const WorkspaceRequest& request) {
  Scratch count;
  const bool wide = request.compute == DType::bf16;
  // The widened weight, or the fp32 sum behind a bf16 gradient; never both at once.
  if (wide || request.gradient == DType::bf16) count.take(request.largest_weight, "");
  if (wide) {
    const std::int64_t chunk = std::min(request.tokens, matmul_chunk);
    count.take(chunk * std::max(request.largest_features, request.hidden), "");
    count.take(chunk * std::max(request.largest_features, request.vocabulary), "");
  }
  return count.used();
}

void HostKernels::do_linear_forward(const GemmOperand& x, const GemmOperand& w, const Tensor& y, Stream&) {
  project(threads_, scratch(), x.tensor, w.tensor, true, y);
}

void HostKernels::do_linear_backward_input(const GemmOperand& dy, const GemmOperand& w, const Tensor& dx,
                                           Stream&) {
  project(threads_, scratch(), dy.tensor, w.tensor, false, dx);
}

void HostKernels::do_linear_backward_weight(const GemmOperand& dy, const GemmOperand& x, const Tensor& dw,
                                            Stream&) {
  if (dy.rows() == 0) return;
  if (dw.dtype() == DType::fp32) {
    correlate(threads_, scratch(), dy.tensor, x.tensor, 1.0f, elements<float>(dw));
    return;
  }
  Scratch space = scratch();
  float* sum = space.take(dw.elements(), "linear_backward_weight");
  correlate(threads_, space, dy.tensor, x.tensor, 0.0f, sum);
  bf16* total = elements<bf16>(dw);
  parallel_ranges(threads_, dw.elements(), elements_grain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) total[i] = narrow<bf16>(widen(total[i]) + sum[i]);
  });
}

}  // namespace llama3d::host
