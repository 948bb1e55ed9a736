#include "compute/attention_truth.hpp"

namespace llama3d::test {
namespace {

/// P has no digits below it: fp32 ends at 2^-126, and a bound is at least 2^-24 of the scale.
constexpr double least_weight = 0x1p-100;

/// The sum of f(i), in lanes that a compiler makes vectors of.
template <class F>
double sum_of(std::size_t n, F f) {
  constexpr std::size_t lanes = 16;
  double sums[lanes] = {}, sum = 0;
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::size_t k = 0; k < lanes; ++k) sums[k] += f(i + k);
  for (; i < n; ++i) sum += f(i);
  for (const double lane : sums) sum += lane;
  return sum;
}

double dot(const double* a, const double* b, std::size_t n) {
  return sum_of(n, [=](std::size_t i) { return a[i] * b[i]; });
}

/// The size of a sum of independent terms a[i] b[i], squared.
double squared_terms(const double* a, const double* b, std::size_t n) {
  return sum_of(n, [=](std::size_t i) { return a[i] * b[i] * a[i] * b[i]; });
}

void add(double factor, const double* from, double* to, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

/// Squares of the terms become scales: their root with the norm of each row of `size`.
void finish(std::vector<double>& squares, const std::vector<double>& rows, std::size_t size) {
  for (std::size_t i = 0; i < squares.size(); ++i)
    squares[i] = std::sqrt(squares[i] + dot(&rows[i * size], &rows[i * size], size));
}

}  // namespace

Mask causal(const Documents& documents) {
  return [starts = documents.starts](std::size_t query, std::size_t key) {
    return key <= query && key >= static_cast<std::size_t>(starts[query]);
  };
}

AttentionTruth::AttentionTruth(const std::vector<float>& qkv, const std::vector<float>& dout,
                               const Documents& documents, const AttentionShape& shape)
    : AttentionTruth(qkv, dout, shape, causal(documents), causal(documents)) {}

AttentionTruth::AttentionTruth(const std::vector<float>& qkv, const std::vector<float>& dout,
                               const AttentionShape& shape, const Mask& forward, const Mask& backward)
    : rows_(qkv.size() / static_cast<std::size_t>(shape.fused_columns())),
      size_(static_cast<std::size_t>(shape.head_dim)),
      heads_(static_cast<std::size_t>(shape.query_heads)),
      kv_heads_(static_cast<std::size_t>(shape.key_value_heads)),
      softmax_scale_(1 / std::sqrt(static_cast<double>(size_))),
      qkv_(qkv.begin(), qkv.end()),
      dout_(dout.begin(), dout.end()) {
  for (auto* of_queries : {&out, &dq}) of_queries->assign(rows_ * heads_ * size_, 0);
  for (auto* of_keys : {&dk, &dv}) of_keys->assign(rows_ * kv_heads_ * size_, 0);
  for (auto* of_queries : {&out_scale, &dq_scale, &lse}) of_queries->assign(rows_ * heads_, 0);
  for (auto* of_keys : {&dk_scale, &dv_scale}) of_keys->assign(rows_ * kv_heads_, 0);
  for (std::size_t head = 0; head < heads_; ++head)
    for (std::size_t t = 0; t < rows_; ++t) differentiate(t, head, attend(t, head, forward), backward);
  finish(out_scale, out, size_);
  finish(dq_scale, dq, size_);
  finish(dk_scale, dk, size_);
  finish(dv_scale, dv, size_);
}

const double* AttentionTruth::query(std::size_t t, std::size_t head) const {
  return &qkv_[(t * (heads_ + 2 * kv_heads_) + head) * size_];
}
const double* AttentionTruth::key(std::size_t t, std::size_t head) const {
  return query(t, heads_ + head / (heads_ / kv_heads_));
}
const double* AttentionTruth::value(std::size_t t, std::size_t head) const {
  return key(t, head) + kv_heads_ * size_;
}
double AttentionTruth::score(std::size_t t, std::size_t s, std::size_t head) const {
  return softmax_scale_ * dot(query(t, head), key(s, head), size_);
}

AttentionTruth::Forward AttentionTruth::attend(std::size_t t, std::size_t head, const Mask& sees) {
  const std::size_t at = t * heads_ + head;
  double* const row = &out[at * size_];
  const double* const gradient = &dout_[at * size_];
  double total = 0, terms = 0;
  std::vector<std::pair<std::size_t, double>> weights;
  for (std::size_t s = 0; s < rows_; ++s)
    if (sees(t, s)) {
      weights.emplace_back(s, std::exp(score(t, s, head)));
      total += weights.back().second;
    }
  for (const auto& [s, weight] : weights) {
    const double p = weight / total, *const v = value(s, head);
    add(p, v, row, size_);
    out_scale[at] += p * p * dot(v, v, size_);
    const double along = p * dot(v, gradient, size_);
    terms += along * along;
  }
  lse[head * rows_ + t] = std::log(total);
  return {std::log(total), dot(row, gradient, size_), std::sqrt(terms + squared_terms(row, gradient, size_))};
}

void AttentionTruth::differentiate(std::size_t t, std::size_t head, const Forward& forward,
                                   const Mask& sees) {
  const std::size_t at = t * heads_ + head;
  const double *const q = query(t, head), *const gradient = &dout_[at * size_];
  const double q_square = dot(q, q, size_), gradient_square = dot(gradient, gradient, size_);
  std::vector<double> mean_key(size_, 0);
  for (std::size_t s = 0; s < rows_; ++s) {
    if (!sees(t, s)) continue;
    const std::size_t to = s * kv_heads_ + head / (heads_ / kv_heads_);
    const double *const k = key(s, head), *const v = value(s, head);
    const double p = std::exp(score(t, s, head) - forward.lse), factor = softmax_scale_ * p;
    const double ds = factor * (dot(gradient, v, size_) - forward.delta);
    add(ds, k, &dq[at * size_], size_);
    add(ds, q, &dk[to * size_], size_);
    add(p, gradient, &dv[to * size_], size_);
    add(factor, k, mean_key.data(), size_);
    const double size = p + least_weight, share = softmax_scale_ * softmax_scale_ * size * size;
    const double terms = ds * ds + share * squared_terms(gradient, v, size_);
    dq_scale[at] += terms * dot(k, k, size_);
    dk_scale[to] += (terms + share * forward.delta_scale * forward.delta_scale) * q_square;
    dv_scale[to] += size * size * gradient_square;
  }
  // The error of delta is one number for the row.
  dq_scale[at] += forward.delta_scale * forward.delta_scale * dot(mean_key.data(), mean_key.data(), size_);
}

FusedParts::FusedParts(const std::vector<float>& fused, const AttentionShape& shape) {
  const std::int64_t queries = shape.output_columns(), keys = shape.key_value_heads * shape.head_dim;
  for (auto row = fused.begin(); row != fused.end(); row += shape.fused_columns()) {
    q.insert(q.end(), row, row + queries);
    k.insert(k.end(), row + queries, row + queries + keys);
    v.insert(v.end(), row + queries + keys, row + queries + 2 * keys);
  }
}

}  // namespace llama3d::test
