#include "compute/attention_truth.hpp"

#include <algorithm>
#include <cmath>

namespace llama3d::test {
namespace {

/// Rows that are computed together, so that a key is read once for them.
constexpr std::size_t row_block = 16;

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

Mask causal(const std::vector<std::int64_t>& document_lengths) {
  std::vector<std::size_t> starts;
  for (const auto length : document_lengths)
    starts.insert(starts.end(), static_cast<std::size_t>(length), starts.size());
  return [starts](std::size_t query, std::size_t key) { return key <= query && key >= starts[query]; };
}

AttentionTruth::AttentionTruth(const std::vector<float>& qkv, const std::vector<float>& dout,
                               const AttentionShape& shape, const std::vector<std::int64_t>& document_lengths)
    : AttentionTruth(qkv, dout, shape, causal(document_lengths), causal(document_lengths)) {}

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
  for (std::size_t at = 0; at < rows_ * (heads_ + 2 * kv_heads_); ++at)
    squares_.push_back(dot(&qkv_[at * size_], &qkv_[at * size_], size_));
  for (std::size_t head = 0; head < heads_; ++head)
    for (std::size_t first = 0; first < rows_; first += row_block)
      compute(head, first, std::min(first + row_block, rows_), forward, backward);
  finish(out_scale, out, size_);
  finish(dq_scale, dq, size_);
  finish(dk_scale, dk, size_);
  finish(dv_scale, dv, size_);
}

std::size_t AttentionTruth::key_place(std::size_t t, std::size_t head) const {
  return t * (heads_ + 2 * kv_heads_) + heads_ + head / (heads_ / kv_heads_);
}
const double* AttentionTruth::query(std::size_t t, std::size_t head) const {
  return &qkv_[(t * (heads_ + 2 * kv_heads_) + head) * size_];
}
const double* AttentionTruth::key(std::size_t t, std::size_t head) const {
  return &qkv_[key_place(t, head) * size_];
}
const double* AttentionTruth::value(std::size_t t, std::size_t head) const {
  return &qkv_[(key_place(t, head) + kv_heads_) * size_];
}
double AttentionTruth::key_square(std::size_t t, std::size_t head) const {
  return squares_[key_place(t, head)];
}
double AttentionTruth::value_square(std::size_t t, std::size_t head) const {
  return squares_[key_place(t, head) + kv_heads_];
}
AttentionTruth::Pair AttentionTruth::pair_of(std::size_t t, std::size_t s, std::size_t head, bool forward,
                                             bool backward) const {
  return {s, forward, backward, softmax_scale_ * dot(query(t, head), key(s, head), size_),
          dot(&dout_[(t * heads_ + head) * size_], value(s, head), size_)};
}

void AttentionTruth::compute(std::size_t head, std::size_t begin, std::size_t end, const Mask& forward,
                             const Mask& backward) {
  std::vector<Row> rows(end - begin);
  for (std::size_t s = 0; s < rows_; ++s)
    for (std::size_t t = begin; t < end; ++t)
      if (const bool sees = forward(t, s), sees_backward = backward(t, s); sees || sees_backward)
        rows[t - begin].pairs.push_back(pair_of(t, s, head, sees, sees_backward));
  for (std::size_t t = begin; t < end; ++t) attend(t, head, rows[t - begin]);
  for (std::size_t s = 0; s < rows_; ++s)
    for (std::size_t t = begin; t < end; ++t) {
      Row& row = rows[t - begin];
      if (row.next == row.pairs.size() || row.pairs[row.next].key != s) continue;
      if (row.pairs[row.next].backward) differentiate(t, head, row, row.pairs[row.next]);
      ++row.next;
    }
  // The error of delta is one number for the row.
  for (std::size_t t = begin; t < end; ++t) {
    const Row& row = rows[t - begin];
    dq_scale[t * heads_ + head] +=
        row.delta_scale * row.delta_scale * dot(row.mean_key.data(), row.mean_key.data(), size_);
  }
}

void AttentionTruth::attend(std::size_t t, std::size_t head, Row& row) {
  const std::size_t at = t * heads_ + head;
  double* const sum = &out[at * size_];
  double total = 0, terms = 0;
  for (const Pair& pair : row.pairs)
    if (pair.forward) total += std::exp(pair.score);
  for (const Pair& pair : row.pairs) {
    if (!pair.forward) continue;
    const double p = std::exp(pair.score) / total;
    add(p, value(pair.key, head), sum, size_);
    out_scale[at] += p * p * value_square(pair.key, head);
    terms += p * p * pair.dp * pair.dp;
  }
  const double* const gradient = &dout_[at * size_];
  row.lse = lse[head * rows_ + t] = std::log(total);
  row.delta = dot(sum, gradient, size_);
  row.delta_scale = std::sqrt(terms + squared_terms(sum, gradient, size_));
  row.mean_key.assign(size_, 0);
  row.q_square = dot(query(t, head), query(t, head), size_);
  row.gradient_square = dot(gradient, gradient, size_);
}

void AttentionTruth::differentiate(std::size_t t, std::size_t head, Row& row, const Pair& pair) {
  const std::size_t at = t * heads_ + head, to = pair.key * kv_heads_ + head / (heads_ / kv_heads_);
  const double *const q = query(t, head), *const gradient = &dout_[at * size_];
  const double *const k = key(pair.key, head), *const v = value(pair.key, head);
  const double p = std::exp(pair.score - row.lse), ds = softmax_scale_ * p * (pair.dp - row.delta);
  add(ds, k, &dq[at * size_], size_);
  add(ds, q, &dk[to * size_], size_);
  add(p, gradient, &dv[to * size_], size_);
  add(softmax_scale_ * p, k, row.mean_key.data(), size_);
  const double size = p + least_weight, share = softmax_scale_ * softmax_scale_ * size * size;
  const double terms = ds * ds + share * squared_terms(gradient, v, size_);
  dq_scale[at] += terms * key_square(pair.key, head);
  dk_scale[to] += (terms + share * row.delta_scale * row.delta_scale) * row.q_square;
  dv_scale[to] += size * size * row.gradient_square;
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
