#pragma once
// The operations of Kernels on the CPU. One file a concern: data, matmul, norm, rope, attention, swiglu,
// embedding, loss, optimizer. Contracts are in compute/kernels.hpp.

#include "compute/host/workspace.hpp"
#include "compute/kernels.hpp"

namespace llama3d::host {

/// Executes each operation before it returns, on `threads` threads; streams are ignored. The same call gives
/// the same bits for a given number of threads. Not for concurrent use: operations share the workspace.
class HostKernels : public Kernels {
 public:
  explicit HostKernels(int threads) : threads_(threads) {}

  std::size_t workspace_bytes(const WorkspaceRequest& request) const override;
  std::size_t logits_bytes() const override { return std::size_t{64} << 20; }
  void set_workspace(const Tensor& workspace) override;
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
  /// All of the workspace; an operation that needs none works without one.
  Scratch scratch() const;

  int threads_;
  Tensor workspace_;
};

}  // namespace llama3d::host
