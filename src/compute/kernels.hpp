#pragma once
// The arithmetic of a Llama 3 training step, as operations coarse enough to fuse. HostKernels (compute/host/)
// is the reference; every other implementation is held against it by tests/compute/.
//
// Conventions, for every operation:
//  - Tensors are contiguous and row-major. T is the number of token rows of the call (any number, 0
//  included),
//    C the hidden size, F the local feed-forward size, V the local vocabulary rows, Hq and Hkv the local
//    query and key-value heads, D the head size. All sizes are the local shard's; nothing here communicates.
//  - "compute" is the dtype of activations and parameters, fp32 or bf16, the same for all such tensors of a
//    call; "gradient" is the dtype of accumulated parameter gradients, fp32 or bf16. Arithmetic inside an
//    operation is fp32; results round once, to nearest even, unless stated.
//  - Outputs are overwritten whole unless called inout; inputs and outputs may alias only where stated.
//  - Work is queued on `stream`; tensors must stay alive until the stream passed it. Nothing synchronizes or
//    allocates, scratch space excepted, which is given once by set_workspace.
//  - Wrong shapes, dtypes or aliasing are a ContractViolation.

#include <cstdint>
#include <span>

#include "compute/device.hpp"
#include "compute/gemm_operand.hpp"
#include "compute/kernel_operations.hpp"
#include "compute/tensor.hpp"

namespace llama3d {

/// Heads of the local shard.
struct AttentionShape {
  std::int64_t query_heads = 0;      ///< Hq, a multiple of Hkv
  std::int64_t key_value_heads = 0;  ///< Hkv
  std::int64_t head_dim = 0;         ///< D, even
  /// Columns of a fused row: Hq query heads, then Hkv key heads, then Hkv value heads.
  std::int64_t fused_columns() const { return (query_heads + 2 * key_value_heads) * head_dim; }
  std::int64_t output_columns() const { return query_heads * head_dim; }
};

/// Who sees whom: row t attends to rows [start[t], t], and is seen by rows [t, end[t]). Rows of one document
/// are contiguous. A batch of B sequences of S tokens has start[t] = t / S * S. `position` is the rotary
/// position.
struct DocumentRows {
  Tensor start;     ///< (T) int32
  Tensor end;       ///< (T) int32
  Tensor position;  ///< (T) int32
};

/// Whose token a row is, in a cache of keys and values: token number `position` of the sequence in `slot`. A
/// row with a slot below 0 is padding.
struct CacheRows {
  Tensor slot;      ///< (T) int32
  Tensor position;  ///< (T) int32
};

/// In training the same shapes come again for hours, so that algorithms are worth long measurements. In
/// inference they vary, and whoever asks waits for the first answer.
enum class KernelUse { training, inference };

/// The sizes that decide how much scratch space an implementation needs.
struct WorkspaceRequest {
  DType compute = DType::fp32;
  DType gradient = DType::fp32;
  std::int64_t tokens = 0;            ///< most rows of any activation
  std::int64_t hidden = 0;            ///< C
  std::int64_t largest_features = 0;  ///< widest activation or weight row
  std::int64_t largest_weight = 0;    ///< most elements of one weight (fused ones count as one)
  std::int64_t vocabulary = 0;        ///< columns of logits, which are made a chunk of rows at a time
  AttentionShape attention;
  bool qkv_bias = false;   ///< bias_backward over the fused columns
  bool head_norm = false;  ///< head_norm_backward
  bool backward = true;    ///< false: forward operations only
};

/// One AdamW update; Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, in PyTorch's
/// form.
struct AdamWStep {
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.95f, epsilon = 1e-8f;
  std::int64_t step = 1;  ///< 1 for the first update; corrects the bias of the moments
};

/// Elements of one parameter's shard that adamw updates.
struct AdamWPiece {
  std::int64_t elements = 0;
  std::int64_t parameter_begin = 0;  ///< first element in `parameter` and `gradient`
  std::int64_t state_begin = 0;      ///< first element in `master`, `exp_avg` and `exp_avg_sq`
  float weight_decay = 0;
  /// Key of stochastic rounding: philox_key(seed, name).
  std::uint64_t rounding_key = 0;
  /// Where the elements lie in the global parameter: element i of the piece is element l = shard_begin + i of
  /// a shard `columns` wide, whose first element is (first_row, first_column) of a matrix `global_columns`
  /// wide.
  std::int64_t shard_begin = 0, columns = 1, first_row = 0, first_column = 0, global_columns = 1;

  std::int64_t global_index(std::int64_t i) const {
    const std::int64_t l = shard_begin + i;
    return (first_row + l / columns) * global_columns + first_column + l % columns;
  }
};

class Kernels {
 public:
  virtual ~Kernels() = default;

  /// Bytes of scratch space for calls within these sizes.
  virtual std::size_t workspace_bytes(const WorkspaceRequest& request) const = 0;
  /// About how many bytes of logits the loss should hold at once: more give its GEMMs more rows.
  virtual std::size_t logits_bytes() const = 0;
  /// Scratch space for all later calls: `workspace` is (bytes / 4) fp32, alive as long as the kernels are
  /// used.
  virtual void set_workspace(const Tensor& workspace) = 0;
  /// What later calls are for; training if not told.
  virtual void set_use(KernelUse) {}

  // --- data movement -------------------------------------------------------------------------------------

  void fill_zero(const Tensor& out, Stream& stream);
  /// out = in, converted to out's dtype; same element count. fp32, bf16.
  void copy(const Tensor& in, const Tensor& out, Stream& stream);
  /// out = a + b, elementwise, compute dtype; out may alias either.
  void add(const Tensor& a, const Tensor& b, const Tensor& out, Stream& stream);
  /// Normal deviates of `standard_deviation` in a block of a global (., global_columns) matrix: the block's
  /// element (i, j) depends only on `key` and the global index (first_row + i) * global_columns +
  /// first_column + j. Philox4x32-10 block index/4, Box-Muller on its word pairs (a, b): the radius from
  /// ((a >> 8) + 1) / 2^24, the angle (b >> 8) / 2^24 of a turn, cosine first. out: (rows, columns) fp32 or
  /// bf16.
  void fill_normal(const Tensor& out, std::uint64_t key, std::int64_t first_row, std::int64_t first_column,
                   std::int64_t global_columns, float standard_deviation, Stream& stream);

  // --- linear operations: GEMMs, with matrices of fp32 or bf16 as they are, row-major and unscaled --------

  /// y = x w^T.  x: (T, K), w: (N, K), y: (T, N), all compute.
  void linear_forward(const GemmOperand& x, const GemmOperand& w, const Tensor& y, Stream& stream);
  /// dx = dy w.  dy: (T, N), w: (N, K), dx: (T, K), all compute.
  void linear_backward_input(const GemmOperand& dy, const GemmOperand& w, const Tensor& dx, Stream& stream);
  /// inout dw += dy^T x.  dy: (T, N), x: (T, K) compute; dw: (N, K) gradient.
  void linear_backward_weight(const GemmOperand& dy, const GemmOperand& x, const Tensor& dw, Stream& stream);

  /// inout y += b in every row, rounded.  y: (T, N), b: (N), compute.
  void add_bias(const Tensor& y, const Tensor& b, Stream& stream);
  /// inout db += the sum of dy's rows.  dy: (T, N) compute; db: (N) gradient.
  void bias_backward(const Tensor& dy, const Tensor& db, Stream& stream);

  // --- RMSNorm (Zhang & Sennrich, 2019) ------------------------------------------------------------------

  /// y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + epsilon).  x, y: (T, C), w: (C) compute; rstd: (T) fp32.
  /// x * rstd is rounded to the compute dtype before the product with w, as Hugging Face does.
  void rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y, const Tensor& rstd,
                        Stream& stream);
  /// sum = residual + delta (rounded), then y, rstd as rms_norm_forward(sum): bit-equal to the two steps.
  /// sum may alias residual or delta.
  void add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w, float epsilon,
                            const Tensor& sum, const Tensor& y, const Tensor& rstd, Stream& stream);
  /// dx = dresidual + d(norm)/dx, inout dw += d(norm)/dw.  dy, x, dx: (T, C) compute; rstd: (T) fp32;
  /// dw: (C) gradient. dresidual: (T, C) compute, the gradient that reaches x around the norm, or empty for
  /// zero; dx may alias dresidual or dy.
  void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                         const Tensor& dresidual, const Tensor& dx, const Tensor& dw, Stream& stream);

  /// Normalizes each query and key head of inout qkv: (T, fused_columns) compute by itself, as
  /// rms_norm_forward with the weights wq or wk: (D).  raw: (T, (Hq + Hkv) D) compute gets the heads as they
  /// were; rstd: (T, Hq + Hkv) fp32.
  void head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon,
                         const AttentionShape& shape, const Tensor& raw, const Tensor& rstd, Stream& stream);
  /// inout dqkv: (T, fused_columns) compute, of query and key heads the gradient behind the norm in, before
  /// it out; inout dwq, dwk: (D) gradient += those of the weights.
  void head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                          const Tensor& rstd, const AttentionShape& shape, const Tensor& dwq,
                          const Tensor& dwk, Stream& stream);

  // --- rotary position embedding (Su et al., 2021), Hugging Face's pairing (i, i + D/2) --------------------

  /// Rotates the query and key heads of inout qkv: (T, fused_columns) compute by documents.position.
  /// table: (P, D) fp32, row p = cos of D/2 angles, then sin; positions must be below P.
  void rope_forward(const Tensor& qkv, const DocumentRows& documents, const Tensor& table,
                    const AttentionShape& shape, Stream& stream);
  /// The inverse rotation of inout dqkv: the gradient of rope_forward.
  void rope_backward(const Tensor& dqkv, const DocumentRows& documents, const Tensor& table,
                     const AttentionShape& shape, Stream& stream);

  // --- attention: causal within documents, grouped-query ---------------------------------------------------

  /// out = softmax(scale q k^T) v, scale = 1 / sqrt(D).  qkv: (T, fused_columns), out: (T, Hq D) compute;
  /// lse: (Hq, T) fp32, log of the sum of exponentials. Never holds T x T scores (Dao et al., 2022).
  void attention_forward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                         const Tensor& out, const Tensor& lse, Stream& stream);
  /// dqkv: (T, fused_columns) compute, from dout: (T, Hq D) and the forward's tensors.
  void attention_backward(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                          const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv,
                          Stream& stream);

  // --- attention to cached keys and values, for inference
  // ---------------------------------------------------
  //
  // cache: (slots, capacity, 2 Hkv D) compute; an entry is a token's rotated key heads, then its value heads.

  /// Stores the keys and values of qkv: (T, fused_columns) compute at their places. No two rows share one;
  /// padding is left out.
  void cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                    const Tensor& cache, Stream& stream);
  /// out = softmax(scale q k^T) v over the entries [0, position] of the row's slot, its own among them, with
  /// the queries of qkv: (T, fused_columns). out: (T, Hq D), 0 for padding; all compute.
  void attention_cached(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                        const Tensor& cache, const Tensor& out, Stream& stream);

  // --- SwiGLU (Shazeer, 2020) ------------------------------------------------------------------------------

  /// h = silu(gate) * up.  gate_up: (T, 2F) compute, a row is F gates then F ups; h: (T, F) compute.
  void swiglu_forward(const Tensor& gate_up, const Tensor& h, Stream& stream);
  /// dgate_up: (T, 2F) from dh: (T, F); may alias gate_up. h: (T, F) gets the forward's output again, bit for
  /// bit, unless it is empty.
  void swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up, const Tensor& h,
                       Stream& stream);

  // --- embedding and loss over a vocabulary shard [first_id, first_id + V) ---------------------------------

  /// out[t] = table[ids[t] - first_id], or zero when the id is not in the shard.
  /// ids: (T) int32; table: (V, C), out: (T, C) compute.
  void embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_id, const Tensor& out,
                         Stream& stream);
  /// inout dtable[ids[t] - first_id] += dout[t].  dout: (T, C) compute; dtable: (V, C) gradient.
  void embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_id, const Tensor& dtable,
                          Stream& stream);

  /// What a shard knows of each row's softmax. statistics: (T, 3) fp32 = largest logit, sum of
  /// exp(logit - largest), logit of the target or 0 when it is not in the shard. Only the first `columns`
  /// logits of a row exist; the rest is padding. logits: (T, V) compute; targets: (T) int32, global ids.
  /// With no existing column: largest = -infinity, sum = 0.
  void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                std::int64_t columns, const Tensor& statistics, Stream& stream);
  /// Joins the statistics of all shards, (shards, T, 3) fp32: losses (T) fp32 gets each row's loss, and
  /// inout totals (2) fp64 gains the sum of the losses and the number of rows. A target below 0 is no target:
  /// its row's loss is 0 and it does not count.
  /// When `gradient`, inout logits becomes d(sum of losses)/d(logits), padding 0.
  void cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                            std::int64_t columns, const Tensor& statistics, bool gradient,
                            const Tensor& losses, const Tensor& totals, Stream& stream);

  // --- optimizer -------------------------------------------------------------------------------------------

  /// inout sum (1) fp64 += sum of in^2.  in: (n) gradient.
  void squared_norm(const Tensor& in, const Tensor& sum, Stream& stream);
  /// From the totals of a step, (3) fp64 = squared norm of the summed gradients, sum of losses, number of
  /// targets: scale (1) fp32 = what turns summed gradients into clipped means,
  ///   1 / targets * min(1, max_norm / (norm + 1e-6)),  norm = sqrt(squared norm) / targets,
  /// or 0 when norm or loss is not finite or there is no target: adamw then leaves everything as it is.
  /// max_norm <= 0 does not clip. report (2) fp32 = mean loss, norm before clipping.
  void gradient_scale(const Tensor& totals, float max_norm, const Tensor& scale, const Tensor& report,
                      Stream& stream);
  /// Updates the pieces unless *scale is 0. parameter: compute and gradient: gradient dtype, of one extent;
  /// master: fp32 weights of which parameter is the rounded copy, or empty; exp_avg, exp_avg_sq: fp32 or
  /// bf16, of one extent with master; scale: (1) fp32. Pieces do not overlap. bf16 moments, and bf16
  /// parameters without a master, round stochastically: to the element with global index g belong, of the
  /// words r of philox4x32(rounding_key, g / 2, step) and with h = 2 (g mod 2), the low half of r[h] for
  /// exp_avg, its high half for exp_avg_sq and the low half of r[h + 1] for the parameter; the 16 bits are
  /// added below those that stay, then the rest is cut off. So bits do not depend on how parameters are
  /// sharded.
  void adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
             const Tensor& master, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const Tensor& scale, Stream& stream);

 protected:
  // What a machine implements: the operations on operands that were checked.
  LLAMA3D_KERNEL_OPERATIONS(LLAMA3D_VIRTUAL_OPERATION)
};

}  // namespace llama3d
