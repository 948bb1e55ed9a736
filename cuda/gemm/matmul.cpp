// GEMMs. A row-major matrix is its transpose to cuBLAS: y = x w^T is computed as y^T = w x^T.

#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/workspace.hpp"
#include "cuda/fused/data_kernels.hpp"
#include "cuda/gemm/matmul_tuner.hpp"

namespace llama3d::cuda {
namespace {

std::uint32_t alignment_of(const Tensor& tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data());
  std::uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

struct Operand {
  const Tensor& tensor;
  bool transposed = false;  ///< as cuBLAS sees the stored matrix
};

/// The row-major (n, m) `out` = op(b) op(a), summed over k.
void run_gemm(MatmulTuner& tuner, const Operand& a, const Operand& b, const Tensor& out, std::int64_t k,
              bool accumulate, const Tensor& workspace, Stream& stream) {
  const MatmulKey key{.m = out.columns(),
                      .n = out.rows(),
                      .k = k,
                      .transpose_a = a.transposed,
                      .transpose_b = b.transposed,
                      .in = a.tensor.dtype(),
                      .out = out.dtype(),
                      .accumulate = accumulate,
                      .alignment_a = alignment_of(a.tensor),
                      .alignment_b = alignment_of(b.tensor),
                      .alignment_d = alignment_of(out)};
  Scratch scratch(workspace);
  void* space = scratch.take<std::byte>(MatmulTuner::workspace_bytes, "a GEMM");
  tuner.run(key, {a.tensor.data(), b.tensor.data(), out.data()}, space, handle_of(stream));
}

}  // namespace

std::size_t matmul_scratch(const WorkspaceRequest& request) {
  Scratch scratch;
  scratch.take<std::byte>(MatmulTuner::workspace_bytes, "");
  if (request.compute == DType::fp32 && request.gradient == DType::bf16)
    scratch.take<float>(request.largest_weight, "");
  return scratch.used();
}

void CudaKernels::do_linear_forward(const GemmOperand& x, const GemmOperand& w, const Tensor& y,
                                    Stream& stream) {
  if (y.elements() == 0) return;
  run_gemm(*matmul_, {w.tensor, true}, {x.tensor}, y, x.columns(), false, workspace_, stream);
}

void CudaKernels::do_linear_backward_input(const GemmOperand& dy, const GemmOperand& w, const Tensor& dx,
                                           Stream& stream) {
  if (dx.elements() == 0) return;
  run_gemm(*matmul_, {w.tensor}, {dy.tensor}, dx, dy.columns(), false, workspace_, stream);
}

void CudaKernels::do_linear_backward_weight(const GemmOperand& dy, const GemmOperand& x, const Tensor& dw,
                                            Stream& stream) {
  if (dy.rows() == 0) return;
  if (x.tensor.dtype() == DType::bf16 || dw.dtype() == DType::fp32) {
    run_gemm(*matmul_, {x.tensor}, {dy.tensor, true}, dw, dy.rows(), true, workspace_, stream);
    return;
  }
  // cuBLASLt does not add an fp32 result to bf16: the result goes through the workspace.
  Scratch scratch(workspace_);
  scratch.take<std::byte>(MatmulTuner::workspace_bytes, "a GEMM");
  const Tensor result(scratch.take<float>(dw.elements(), "linear_backward_weight"), DType::fp32, dw.shape());
  run_gemm(*matmul_, {x.tensor}, {dy.tensor, true}, result, dy.rows(), false, workspace_, stream);
  accumulate(result, dw, handle_of(stream));
}

}  // namespace llama3d::cuda
