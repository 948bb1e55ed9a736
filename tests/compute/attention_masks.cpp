// Who sees whom in attention, pair by pair, forward and backward, and how far a change reaches.
#include "compute/attention_run.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

/// One row and one more than the tiles of 64 and 128 rows that kernels have, and documents across their
/// edges; the last one begins inside a tile.
const std::vector<std::vector<std::int64_t>> layouts = {{65},          {129},     {257}, {1, 64, 65, 127},
                                                        {127, 2, 128}, {150, 107}};
/// Those of the kernels for any size, and of each kernel for one.
const auto head_sizes = data::make({std::int64_t{16}, std::int64_t{32}, std::int64_t{64}, std::int64_t{128}});

/// A call's extents, and where its heads lie.
struct Case {
  AttentionShape shape;
  const Documents& documents;
  std::int64_t rows = static_cast<std::int64_t>(documents.starts.size());
  std::int64_t group = shape.query_heads / shape.key_value_heads;

  std::int64_t start(std::int64_t row) const { return documents.starts[static_cast<std::size_t>(row)]; }
  std::int64_t end(std::int64_t row) const { return documents.ends[static_cast<std::size_t>(row)]; }
  bool sees(std::int64_t query, std::int64_t key) const { return key <= query && key >= start(query); }

  /// First element of a head in a fused row: queries, then keys, then values.
  std::size_t at(std::int64_t row, std::int64_t head) const {
    return static_cast<std::size_t>(row * shape.fused_columns() + head * shape.head_dim);
  }
  std::int64_t key_head(std::int64_t head) const { return shape.query_heads + head; }
  std::int64_t value_head(std::int64_t head) const { return key_head(shape.key_value_heads + head); }
  std::size_t dout_at(std::int64_t row, std::int64_t head) const {
    return static_cast<std::size_t>((row * shape.query_heads + head) * shape.head_dim);
  }

  /// A head of every row becomes a unit vector, that of the row's place among `first` and the D - 1 rows
  /// behind it, or zero elsewhere.
  template <class At>
  void set_units(std::vector<float>& values, At at, std::int64_t head, std::int64_t first) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(at(row, head)), shape.head_dim, 0.0f);
      if (row >= first && row < first + shape.head_dim)
        values[at(row, head) + static_cast<std::size_t>(row - first)] = 1;
    }
  }
  template <class At>
  void clear(std::vector<float>& values, At at, std::int64_t head) const {
    set_units(values, at, head, rows);
  }
};

/// P of every query head: (T, Hq, T), 0 for pairs that do not see each other.
std::vector<double> weights(const std::vector<float>& qkv, const Case& c) {
  const auto rows = static_cast<std::size_t>(c.rows), heads = static_cast<std::size_t>(c.shape.query_heads);
  std::vector<double> p(rows * heads * rows, 0);
  for (std::int64_t t = 0; t < c.rows; ++t)
    for (std::int64_t h = 0; h < c.shape.query_heads; ++h) {
      double* row = &p[(static_cast<std::size_t>(t) * heads + static_cast<std::size_t>(h)) * rows];
      double total = 0;
      for (std::int64_t s = c.start(t); s <= t; ++s) {
        double score = 0;
        for (std::size_t d = 0; d < static_cast<std::size_t>(c.shape.head_dim); ++d)
          score += double{qkv[c.at(t, h) + d]} * qkv[c.at(s, c.key_head(h / c.group)) + d];
        total += row[s] = std::exp(score / std::sqrt(static_cast<double>(c.shape.head_dim)));
      }
      for (std::int64_t s = c.start(t); s <= t; ++s) row[s] /= total;
    }
  return p;
}

/// Values that are unit vectors from row `first` show P in `out`, gradients of `out` that are, of one head,
/// show it in dV.
void check_weights(Machine& m, DType dtype, const Case& c, AttentionInputs inputs, std::int64_t first,
                   std::int64_t head) {
  const std::vector<double> p = weights(inputs.qkv, c);
  const auto fused = [&](auto row, auto h) { return c.at(row, h); };
  const auto output = [&](auto row, auto h) { return c.dout_at(row, h); };
  c.set_units(inputs.qkv, fused, c.value_head(0), first);
  for (std::int64_t h = 0; h < c.shape.query_heads; ++h) c.clear(inputs.dout, output, h);
  c.set_units(inputs.dout, output, head, first);
  const AttentionOutputs actual = run_attention(m, dtype, c.shape, c.documents, inputs);
  const auto weight = [&](std::int64_t query, std::int64_t h, std::int64_t key) {
    return query < c.rows && key < c.rows
               ? p[static_cast<std::size_t>((query * c.shape.query_heads + h) * c.rows + key)]
               : 0;
  };
  std::vector<double> out, dv;
  for (std::int64_t row = 0; row < c.rows; ++row) {
    for (std::int64_t h = 0; h < c.shape.query_heads; ++h)
      for (std::int64_t d = 0; d < c.shape.head_dim; ++d) out.push_back(weight(row, h, first + d));
    for (std::int64_t d = 0; d < c.shape.head_dim; ++d) dv.push_back(weight(first + d, head, row));
  }
  // P is rounded, then its product with 1, which for dV is the same. Exponents of a few units cost a few
  // roundings of fp32.
  const double sums = most(DType::fp32), rounding = dtype == DType::bf16 ? 0x1p-8 : 0;
  CHECK_AGREES("attention out of one key", actual.out, out,
               Rows{{c.rows, c.shape.query_heads, c.shape.head_dim}}, sums + 2 * rounding);
  CHECK_AGREES("attention dV of one query", actual.dv, dv, Rows{{c.rows, 1, c.shape.head_dim}},
               sums + rounding);
}

/// Keys that are unit vectors from row `first` show dS in dQ, queries that are, of one head, show it in dK.
void check_score_gradients(Machine& m, DType dtype, const Case& c, AttentionInputs inputs, std::int64_t first,
                           std::int64_t head) {
  const auto fused = [&](auto row, auto h) { return c.at(row, h); };
  c.set_units(inputs.qkv, fused, c.key_head(0), first);
  for (std::int64_t h = 0; h < c.shape.query_heads; ++h) c.clear(inputs.qkv, fused, h);
  c.set_units(inputs.qkv, fused, head, first);
  const AttentionOutputs actual = run_attention(m, dtype, c.shape, c.documents, inputs);
  std::string wrong;
  const auto check = [&](const char* what, float ds, std::int64_t query, std::int64_t key) {
    const bool in_sight = query < c.rows && key < c.rows && c.sees(query, key);
    // A row that sees itself only has dS = 0, which may come out as the rounding of its terms.
    const bool right = in_sight && query == c.start(query) ? std::isfinite(ds) : (ds != 0) == in_sight;
    if (!right) wrong += what + std::to_string(query) + "/" + std::to_string(key);
  };
  for (std::int64_t row = 0; row < c.rows; ++row)
    for (std::int64_t d = 0; d < c.shape.head_dim; ++d) {
      const auto column = static_cast<std::size_t>(d);
      for (std::int64_t h = 0; h < c.shape.query_heads; ++h)
        check(" dQ ", actual.dq[c.dout_at(row, h) + column], row, first + d);
      check(" dK ", actual.dk[static_cast<std::size_t>(row * c.shape.head_dim) + column], first + d, row);
    }
  BOOST_TEST(wrong.empty(), "wrong for queries/keys" << wrong.substr(0, 400));
}

/// Calls check(machine, dtype, case, random inputs, first, head) so that unit vectors stand for every row and
/// head.
template <class F>
void for_units(Machine& m, DType dtype, std::int64_t size, F check) {
  for (const auto& lengths : layouts) {
    const Documents documents(m, lengths);
    const Case c{{2, 1, size}, documents};
    const AttentionInputs inputs = random_inputs(c.shape, c.rows, dtype);
    for (std::int64_t first = 0; first < c.rows; first += size)
      for (std::int64_t head = 0; head < c.shape.query_heads; ++head)
        BOOST_TEST_CONTEXT("documents " << lengths.size() << " of " << c.rows
                                        << " rows, unit vectors from row " << first << ", head " << head)
    check(m, dtype, c, inputs, first, head);
  }
}

/// The rows and heads of each output that a change can reach.
struct Reach {
  using Rows = std::function<bool(std::int64_t row, std::int64_t head)>;
  Rows out, lse, dq, dk, dv;
  bool certain;  ///< some of them change: not so where a row that sees itself only has P = 1 whatever its
                 ///< score

  /// By the definition: P of a query depends on its own q and the keys in sight, `out` on the values in
  /// sight, too; dS on P and on dout times all values in sight. 'o' is dout.
  Reach(const Case& c, char input, std::int64_t row, std::int64_t head) {
    const bool of_query = input == 'q' || input == 'o';
    const std::int64_t group = c.group, kv_head = of_query ? head / group : head, start = c.start(row),
                       end = c.end(row);
    const auto nothing = [](std::int64_t, std::int64_t) { return false; };
    const Rows queries = [=](std::int64_t t, std::int64_t h) {
      return of_query ? t == row && h == head : t >= row && t < end && h / group == kv_head;
    };
    // What these queries see.
    const std::int64_t keys_end = of_query ? row + 1 : end;
    const Rows keys = [=](std::int64_t s, std::int64_t h) {
      return s >= start && s < keys_end && h == kv_head;
    };
    out = input == 'o' ? nothing : queries;
    lse = input == 'o' || input == 'v' ? nothing : queries;
    dq = queries;
    dk = keys;
    dv = input == 'v' ? nothing : keys;
    certain = keys_end > start + 1;
  }
};

/// The rows of each head of an output, compared before and after a change.
struct Comparison {
  const Case& c;
  std::int64_t heads, row_stride, head_stride, width;

  /// `unordered`: whether the sums of a row may round to a neighbour from one call to the next.
  template <class Unordered>
  void check(const char* what, const std::vector<float>& before, const std::vector<float>& after,
             const Reach::Rows& reached, bool certain, const Unordered& unordered) const {
    std::string wrong;
    bool any_reached = false, any_changed = false;
    for (std::int64_t t = 0; t < c.rows; ++t)
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto at = static_cast<std::size_t>(t * row_stride + h * head_stride);
        double apart = 0, norm = 0;
        for (std::size_t i = at; i < at + static_cast<std::size_t>(width); ++i) {
          apart += (double{after[i]} - before[i]) * (double{after[i]} - before[i]);
          norm += double{before[i]} * before[i];
        }
        const bool same = unordered(t) ? apart <= 0x1p-14 * norm : apart == 0;
        any_reached = any_reached || reached(t, h);
        any_changed = any_changed || !same;
        if (!std::isfinite(apart) || (!same && !reached(t, h)))
          wrong += " " + std::to_string(t) + "/" + std::to_string(h);
      }
    BOOST_TEST(wrong.empty(), what << " changes in rows/heads" << wrong.substr(0, 400));
    if (certain) BOOST_TEST(any_changed == any_reached, what << " does not change");
  }
};

/// One head's vector in a row of an input changes.
void check_change(Machine& m, DType dtype, const Case& c, const AttentionInputs& inputs,
                  const AttentionOutputs& before, char input, std::int64_t row) {
  const std::int64_t size = c.shape.head_dim, heads = c.shape.query_heads, kv_heads = c.shape.key_value_heads;
  const std::int64_t head = input == 'q' || input == 'o' ? c.group : 1;
  AttentionInputs changed = inputs;
  auto& values = input == 'o' ? changed.dout : changed.qkv;
  const std::size_t at = input == 'o'   ? c.dout_at(row, head)
                         : input == 'q' ? c.at(row, head)
                         : input == 'k' ? c.at(row, c.key_head(head))
                                        : c.at(row, c.value_head(head));
  for (std::size_t i = at; i < at + static_cast<std::size_t>(size); ++i) values[i] += 1;
  values = rounded(std::move(values), dtype);
  const AttentionOutputs after = run_attention(m, dtype, c.shape, c.documents, changed);
  const Reach reach(c, input, row, head);
  const auto ordered = [](std::int64_t) { return false; };
  // Two parts have one sum, in whatever order.
  const auto dq_unordered = [&](std::int64_t t) {
    return !dq_has_an_order(m, dtype, size) && t / unordered_keys - c.start(t) / unordered_keys >= 2;
  };
  const Comparison queries{c, heads, heads * size, size, size},
      keys{c, kv_heads, kv_heads * size, size, size};
  queries.check("out", before.out, after.out, reach.out, reach.certain, ordered);
  Comparison{c, heads, 1, c.rows, 1}.check("lse", before.lse, after.lse, reach.lse, reach.certain, ordered);
  queries.check("dQ", before.dq, after.dq, reach.dq, reach.certain, dq_unordered);
  keys.check("dK", before.dk, after.dk, reach.dk, reach.certain, ordered);
  keys.check("dV", before.dv, after.dv, reach.dv, reach.certain, ordered);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(attention_masks)

BOOST_DATA_TEST_CASE(weights_are_those_of_the_pairs_in_sight,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  for_units(machine.get(), dtype, size, check_weights);
}

BOOST_DATA_TEST_CASE(gradients_of_scores_are_those_of_the_pairs_in_sight,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  for_units(machine.get(), dtype, size, check_score_gradients);
}

BOOST_DATA_TEST_CASE(a_change_reaches_nobody_out_of_sight,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  Machine& m = machine.get();
  for (const auto& lengths : layouts) {
    const Documents documents(m, lengths);
    const Case c{{4, 2, size}, documents};
    const AttentionInputs inputs = random_inputs(c.shape, c.rows, dtype);
    const AttentionOutputs before = run_attention(m, dtype, c.shape, documents, inputs);
    for (const std::int64_t row :
         {std::int64_t{0}, std::int64_t{63}, std::int64_t{64}, std::int64_t{128}, c.rows - 1})
      for (const char input : {'q', 'k', 'v', 'o'}) {
        if (row >= c.rows) continue;
        BOOST_TEST_CONTEXT("documents " << lengths.size() << " of " << c.rows << " rows, " << input
                                        << " of row " << row << " changed")
        check_change(m, dtype, c, inputs, before, input, row);
      }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
