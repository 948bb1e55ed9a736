// Chooses how attention is computed.

#include <cmath>

#include "compute/contracts.hpp"
#include "cuda/attention_kernels.hpp"
#include "cuda/check.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/cuda_stream.hpp"
#include "cuda/workspace.hpp"

namespace llama3d::cuda {
namespace {

bool suits_mma(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return dtype == DType::bf16 && (head_dim == 64 || head_dim == 128) &&
         mma_shared_bytes(static_cast<int>(head_dim)) <= gpu.shared_bytes;
}

AttentionCall make_call(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                        const Tensor& out, const Tensor& lse) {
  LLAMA3D_EXPECT(shape.head_dim <= largest_head_dim, "head size {}, at most {} on GPUs", shape.head_dim,
                 largest_head_dim);
  AttentionCall call;
  call.qkv = qkv.data();
  call.start = documents.start.as<std::int32_t>();
  call.end = documents.end.as<std::int32_t>();
  call.rows = static_cast<int>(qkv.rows());
  call.query_heads = static_cast<int>(shape.query_heads);
  call.key_value_heads = static_cast<int>(shape.key_value_heads);
  call.head_dim = static_cast<int>(shape.head_dim);
  call.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  call.out = out.data();
  call.lse = lse.as<float>();
  return call;
}

struct BackwardScratch {
  float* delta;
  float* dq;
  BackwardScratch(Scratch& scratch, std::int64_t rows, const AttentionShape& shape)
      : delta(scratch.take<float>(shape.query_heads * rows, "attention_backward")),
        dq(scratch.take<float>(mma_dq_elements(rows, shape.query_heads, shape.head_dim),
                               "attention_backward")) {}
};

}  // namespace

std::size_t attention_scratch(const WorkspaceRequest& request) {
  Scratch scratch;
  BackwardScratch(scratch, request.tokens, request.attention);
  return scratch.used();
}

void CudaKernels::attention_forward(const Tensor& qkv, const DocumentRows& documents,
                                    const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                    Stream& stream) {
  contracts::attention_forward(qkv, documents, shape, out, lse);
  if (qkv.rows() == 0) return;
  const AttentionCall call = make_call(qkv, documents, shape, out, lse);
  if (suits_mma(gpu_, qkv.dtype(), shape.head_dim))
    attention_forward_mma(call, handle_of(stream));
  else
    attention_forward_plain(call, qkv.dtype(), handle_of(stream));
  check_launch("attention_forward", qkv.shape());
}

void CudaKernels::attention_backward(const Tensor& qkv, const DocumentRows& documents,
                                     const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                     const Tensor& dout, const Tensor& dqkv, Stream& stream) {
  contracts::attention_backward(qkv, documents, shape, out, lse, dout, dqkv);
  if (qkv.rows() == 0) return;
  AttentionCall call = make_call(qkv, documents, shape, out, lse);
  call.dout = dout.data();
  call.dqkv = dqkv.data();
  Scratch scratch(workspace_);
  const BackwardScratch space(scratch, qkv.rows(), shape);
  call.delta = space.delta;
  call.dq = space.dq;
  if (suits_mma(gpu_, qkv.dtype(), shape.head_dim))
    attention_backward_mma(call, handle_of(stream));
  else
    attention_backward_plain(call, qkv.dtype(), handle_of(stream));
  check_launch("attention_backward", qkv.shape());
}

}  // namespace llama3d::cuda
