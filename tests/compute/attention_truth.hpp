#pragma once
// Attention and its gradients from the definition in double, one pair of rows at a time, with the size of the
// terms that each row is a sum of.

#include <cstdint>
#include <functional>
#include <vector>

#include "compute/kernels.hpp"

namespace llama3d::test {

/// Whether a query sees a key.
using Mask = std::function<bool(std::size_t query, std::size_t key)>;

/// The mask of attention: earlier rows of the same document, and the row itself.
Mask causal(const std::vector<std::int64_t>& document_lengths);

/// Everything attention computes.
struct AttentionTruth {
  std::vector<double> out, lse, dq, dk, dv;
  /// The scale of errors of each row and head: the norm of the row, and of the terms that it is a sum of,
  /// added up as independent errors are. With P near one dS = P (dP - delta) is a difference of equal terms,
  /// and so is the row of dQ: it is off by as much as these terms are rounded, however little is left of
  /// them. `delta`, the sum of out * dout, has the roundings of `out` and of P in it.
  std::vector<double> out_scale, dq_scale, dk_scale, dv_scale;

  AttentionTruth(const std::vector<float>& qkv, const std::vector<float>& dout, const AttentionShape& shape,
                 const std::vector<std::int64_t>& document_lengths);
  /// The forward pass by one mask, its gradients by another.
  AttentionTruth(const std::vector<float>& qkv, const std::vector<float>& dout, const AttentionShape& shape,
                 const Mask& forward, const Mask& backward);

 private:
  /// A query of a head and a key that one of the masks shows it: q k / sqrt(D), and the gradient of P.
  struct Pair {
    std::size_t key;
    bool forward, backward;  ///< by which mask
    double score, dp;
  };
  /// One row of one head.
  struct Row {
    std::vector<Pair> pairs;
    std::size_t next = 0;  ///< pair to differentiate
    double lse = 0, delta = 0, delta_scale = 0;
    double q_square = 0, gradient_square = 0;  ///< squared norms of q and dout
    std::vector<double> mean_key;              ///< sum of P k / sqrt(D)
  };
  /// Rows [begin, end) of a head.
  void compute(std::size_t head, std::size_t begin, std::size_t end, const Mask& forward,
               const Mask& backward);
  Pair pair_of(std::size_t t, std::size_t s, std::size_t head, bool forward, bool backward) const;
  void attend(std::size_t t, std::size_t head, Row& row);
  void differentiate(std::size_t t, std::size_t head, Row& row, const Pair& pair);

  // Of a row, and of the head of keys and values that query head `head` attends to.
  std::size_t key_place(std::size_t t, std::size_t head) const;
  const double* query(std::size_t t, std::size_t head) const;
  const double* key(std::size_t t, std::size_t head) const;
  const double* value(std::size_t t, std::size_t head) const;
  double key_square(std::size_t t, std::size_t head) const;
  double value_square(std::size_t t, std::size_t head) const;

  std::size_t rows_, size_, heads_, kv_heads_;
  double softmax_scale_;
  std::vector<double> qkv_, dout_;
  std::vector<double> squares_;  // of each head of each row of qkv: its squared norm
};

/// The parts of a fused gradient: (T, Hq, D), (T, Hkv, D) and (T, Hkv, D).
struct FusedParts {
  std::vector<float> q, k, v;
  FusedParts(const std::vector<float>& fused, const AttentionShape& shape);
};

}  // namespace llama3d::test
