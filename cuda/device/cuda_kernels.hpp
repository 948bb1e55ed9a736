#pragma once
// The operations of Kernels on one NVIDIA GPU. One file a concern: data, matmul, norm, rope, attention,
// swiglu, embedding, loss, optimizer. Contracts are in compute/kernels.hpp.

#include <memory>

#include "compute/kernels.hpp"
#include "cuda/device/gpu_traits.hpp"

namespace llama3d::cuda {

class MatmulTuner;

/// Queues each operation on its stream. The same call gives the same bits, but for the backward pass of
/// attention on tensor cores, whose atomic additions have no order. Operations share the workspace, so one
/// stream at a time.
class CudaKernels final : public Kernels {
 public:
  /// `counters`: two in the GPU's memory, zero; see AttentionCall.
  CudaKernels(const GpuTraits& gpu, int* counters);
  ~CudaKernels() override;

  std::size_t workspace_bytes(const WorkspaceRequest& request) const override;
  /// 4096 rows of Llama 3's vocabulary in bf16: enough for the products of the head to run at full speed.
  std::size_t logits_bytes() const override { return std::size_t{1} << 30; }
  void set_workspace(const Tensor& workspace) override;
  void set_use(KernelUse use) override;
  void fill_zero(const Tensor& out, Stream& stream) override;
  void copy(const Tensor& in, const Tensor& out, Stream& stream) override;
  void add(const Tensor& a, const Tensor& b, const Tensor& out, Stream& stream) override;
  void fill_normal(const Tensor& out, std::uint64_t key, std::int64_t first_row, std::int64_t first_column,
                   std::int64_t global_columns, float standard_deviation, Stream& stream) override;
  void linear_forward(const Tensor& x, const Tensor& w, const Tensor& y, Stream& stream) override;
  void linear_backward_input(const Tensor& dy, const Tensor& w, const Tensor& dx, Stream& stream) override;
  void linear_backward_weight(const Tensor& dy, const Tensor& x, const Tensor& dw, Stream& stream) override;
  void add_bias(const Tensor& y, const Tensor& b, Stream& stream) override;
  void bias_backward(const Tensor& dy, const Tensor& db, Stream& stream) override;
  void rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y, const Tensor& rstd,
                        Stream& stream) override;
  void add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w, float epsilon,
                            const Tensor& sum, const Tensor& y, const Tensor& rstd, Stream& stream) override;
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                         const Tensor& dresidual, const Tensor& dx, const Tensor& dw,
                         Stream& stream) override;
  void head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon,
                         const AttentionShape& shape, const Tensor& raw, const Tensor& rstd,
                         Stream& stream) override;
  void head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                          const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq,
                          const Tensor& dwk, Stream& stream) override;
  void rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                    const AttentionShape& shape, Stream& stream) override;
  void rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                     const AttentionShape& shape, Stream& stream) override;
  void attention_forward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                         const Tensor& out, const Tensor& lse, Stream& stream) override;
  void attention_backward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                          const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv,
                          Stream& stream) override;
  void cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                    const Tensor& cache, Stream& stream) override;
  void attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                        const Tensor& cache, const Tensor& out, Stream& stream) override;
  void swiglu_forward(const Tensor& gate_up, const Tensor& h, Stream& stream) override;
  void swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up, const Tensor& h,
                       Stream& stream) override;
  void embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_id, const Tensor& out,
                         Stream& stream) override;
  void embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_id, const Tensor& dtable,
                          Stream& stream) override;
  void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                std::int64_t columns, const Tensor& statistics, Stream& stream) override;
  void cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                            std::int64_t columns, const Tensor& statistics, bool gradient,
                            const Tensor& losses, const Tensor& totals, Stream& stream) override;
  void squared_norm(const Tensor& in, const Tensor& sum, Stream& stream) override;
  void gradient_scale(const Tensor& totals, float max_norm, const Tensor& scale, const Tensor& report,
                      Stream& stream) override;
  void adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
             const Tensor& master, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const Tensor& scale, Stream& stream) override;

 private:
  GpuTraits gpu_;
  int* counters_;
  Tensor workspace_;
  std::unique_ptr<MatmulTuner> matmul_;
};

}  // namespace llama3d::cuda
