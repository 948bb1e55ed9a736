// Attention as Kernels has it, by the variant that suits.

#include <algorithm>
#include <cmath>

#include "cuda/attention/attention_variants.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"

namespace llama3d::cuda {
namespace {

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

/// The scratch space of a backward pass of so many rows.
void take_scratch(Scratch& scratch, const AttentionBackward& variant, const GpuTraits& gpu, std::int64_t rows,
                  const AttentionShape& shape, AttentionCall& call) {
  call.delta = scratch.take<float>(shape.query_heads * rows, "attention_backward");
  call.dq = scratch.take<float>(dq_elements(rows, shape.query_heads, shape.head_dim), "attention_backward");
  variant.take_scratch(scratch, gpu, rows, shape, call);
}

}  // namespace

std::size_t attention_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  const AttentionBackward& variant = attention_backward_for(gpu, request.compute, request.attention.head_dim);
  // Fewer rows may need more: they may be split more often.
  std::size_t most = 0;
  for (std::int64_t rows = request.tokens; rows > 0; rows = (rows - 1) / wgmma_key_tile * wgmma_key_tile) {
    Scratch scratch;
    AttentionCall measured;
    take_scratch(scratch, variant, gpu, rows, request.attention, measured);
    most = std::max(most, scratch.used());
  }
  return most;
}

void CudaKernels::do_attention_forward(const Tensor& qkv, const DocumentRows& documents,
                                       const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                       Stream& stream) {
  if (qkv.rows() == 0) return;
  AttentionCall call = make_call(qkv, documents, shape, out, lse);
  call.counters = counters_;
  attention_forward_for(gpu_, qkv.dtype(), shape.head_dim).run(call, qkv.dtype(), gpu_, handle_of(stream));
  check_launch("attention_forward", qkv.shape());
}

void CudaKernels::do_attention_backward(const Tensor& qkv, const DocumentRows& documents,
                                        const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                        const Tensor& dout, const Tensor& dqkv, Stream& stream) {
  if (qkv.rows() == 0) return;
  AttentionCall call = make_call(qkv, documents, shape, out, lse);
  call.dout = dout.data();
  call.dqkv = dqkv.data();
  const AttentionBackward& variant = attention_backward_for(gpu_, qkv.dtype(), shape.head_dim);
  Scratch scratch(workspace_);
  take_scratch(scratch, variant, gpu_, qkv.rows(), shape, call);
  variant.run(call, qkv.dtype(), handle_of(stream));
  check_launch("attention_backward", qkv.shape());
}

}  // namespace llama3d::cuda
