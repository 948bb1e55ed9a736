// Attention and its gradients against the definition in double, one pair of rows at a time.
#include <numeric>

#include "compute/attention_run.hpp"
#include "compute/machines.hpp"
#include "support/preconditions.hpp"
#include "support/relative_error.hpp"
#include "support/test_device.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

/// A call and its truth. Queries and keys have scores of about `largest_score`.
struct Problem {
  AttentionShape shape;
  std::vector<std::int64_t> lengths;
  AttentionInputs inputs;
  double largest_score;
  AttentionTruth truth{inputs.qkv, inputs.dout, shape, lengths};
};

/// Random values, those of q, k and v of `deviation`.
Problem random_problem(DType dtype, const AttentionShape& shape, const std::vector<std::int64_t>& lengths,
                       float deviation = 1) {
  const std::int64_t t = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  return {shape, lengths, random_inputs(shape, t, dtype, deviation),
          4 * deviation * deviation * std::sqrt(static_cast<double>(shape.head_dim))};
}

/// Forward and backward on a machine against the truth.
void check(Machine& m, DType dtype, const Problem& problem) {
  const AttentionShape& shape = problem.shape;
  const AttentionTruth& truth = problem.truth;
  BOOST_TEST_CONTEXT("heads " << shape.query_heads << "/" << shape.key_value_heads << " of " << shape.head_dim
                              << ", documents " << problem.lengths.size()) {
    const Documents documents(m, problem.lengths);
    const auto t = static_cast<std::int64_t>(documents.starts.size());
    const AttentionOutputs actual = run_attention(m, dtype, shape, documents, problem.inputs);

    // Scores are sums over the head size; their error, times up to their own size, passes into the
    // exponentials. Scores of ordinary size stay within what is asked of every operation.
    const double exponent = problem.largest_score * tolerance(DType::fp32, 1);
    const auto bound = [&](double sums) {
      return problem.largest_score < 50 ? std::min(exponent + sums, most(dtype)) : exponent + sums;
    };
    // Terms are rounded (P, dS, and `out` in delta), then their sum. An error of P or of delta is one number
    // for all columns of a row.
    const double rounded = bound(tolerance(dtype, t));
    const auto heads = [&](std::int64_t count, const std::vector<double>& scales) {
      return Rows{{t, count}, scales, 2};
    };
    CHECK_AGREES("attention out", actual.out, truth.out, heads(shape.query_heads, truth.out_scale), rounded);
    std::vector<double> around_one;
    for (const double value : truth.lse) around_one.push_back(1 + std::abs(value));
    CHECK_AGREES("attention lse", actual.lse, truth.lse, Rows{{shape.query_heads, t}, around_one},
                 bound(tolerance(DType::fp32, t)));
    CHECK_AGREES("attention dQ", actual.dq, truth.dq, heads(shape.query_heads, truth.dq_scale), rounded);
    CHECK_AGREES("attention dK", actual.dk, truth.dk, heads(shape.key_value_heads, truth.dk_scale), rounded);
    CHECK_AGREES("attention dV", actual.dv, truth.dv, heads(shape.key_value_heads, truth.dv_scale), rounded);
  }
}

/// The same on every machine, where the truth takes long.
void check_everywhere(DType dtype, const Problem& problem) {
  for (const MachineCase& machine : machines_old_and_new())
    BOOST_TEST_CONTEXT(machine) check(machine.get(), dtype, problem);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(attention)

BOOST_DATA_TEST_CASE(the_rows_see_a_wrong_mask_that_the_norm_does_not,
                     data::make({std::int64_t{64}, std::int64_t{128}}), size) {
  // Gradients in double by masks that are wrong in a few rows, rounded to bf16.
  const AttentionShape shape{1, 1, size};
  constexpr std::size_t t = 400;
  const auto values = random_values(t * shape.fused_columns(), DType::bf16, 41),
             gradient = random_values(t * size, DType::bf16, 42);
  const auto past = [](std::size_t query, std::size_t key) { return key <= query; };
  const AttentionTruth truth(values, gradient, shape, past, past);
  const auto row_error = [&](const Mask& mask) {
    const AttentionTruth wrong(values, gradient, shape, past, mask);
    double largest = 0;
    for (const auto& [actual, expected, scales] :
         {std::tie(wrong.dq, truth.dq, truth.dq_scale), std::tie(wrong.dk, truth.dk, truth.dk_scale),
          std::tie(wrong.dv, truth.dv, truth.dv_scale)}) {
      const auto stored = rounded(std::vector<float>(actual.begin(), actual.end()), DType::bf16);
      // The Euclidean norm of a whole tensor against what is asked of every operation.
      BOOST_CHECK_LE(relative_error(std::span(stored), std::span(expected)), most(DType::bf16));
      largest =
          std::max(largest, row_errors(std::span<const float>(stored), std::span<const double>(expected), t,
                                       std::span<const double>(scales))
                                .largest);
    }
    return largest;
  };
  const double bound = 2 * tolerance(DType::bf16, t);
  BOOST_CHECK_LE(row_error(past), bound);
  BOOST_CHECK_GT(row_error([](auto q, auto k) { return k <= q + (q % 128 == 0 && q > 0); }), bound);
  BOOST_CHECK_GT(row_error([](auto q, auto k) { return k <= q && !(q % 128 == 0 && q > 0 && k == 0); }),
                 bound);
  BOOST_CHECK_GT(row_error([](auto q, auto k) { return k <= q + (q == 128); }), bound);
}

BOOST_DATA_TEST_CASE(documents_of_every_kind, data::make(machines_old_and_new()) * data::make(reals()),
                     machine, dtype) {
  const std::vector<std::vector<std::int64_t>> batches = {
      {},   // no row
      {1},  // one token
      {2},  // the smallest that mixes rows
      {63},
      {64},
      {65},
      {127},
      {129},
      {130},
      {257},
      {128, 128},  // whole tiles
      {128, 128, 1},
      {5, 70, 1, 64, 33},
      {40, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},  // padding rows behind a document
      std::vector<std::int64_t>(80, 1),       // nothing but padding
  };
  for (const auto& lengths : batches)
    for (const std::int64_t size : {16, 64, 128})
      check(machine.get(), dtype, random_problem(dtype, {2, 1, size}, lengths));
}

// Head sizes 64 and 128 are those of the models, and the ones that have kernels of their own.
const auto head_sizes = data::make({std::int64_t{16}, std::int64_t{64}, std::int64_t{128}});
const auto model_head_sizes = data::make({std::int64_t{64}, std::int64_t{128}});

BOOST_DATA_TEST_CASE(long_documents, data::make(reals()) * model_head_sizes, dtype, size) {
  check_everywhere(dtype, random_problem(dtype, {4, 2, size}, {700, 3, 321}));
  check_everywhere(dtype, random_problem(dtype, {2, 2, size}, {1000}));
}

// More blocks of rows than a GPU has multiprocessors: one takes several, of different lengths.
BOOST_DATA_TEST_CASE(blocks_of_rows_by_the_hundred, data::make(reals()) * model_head_sizes, dtype, size) {
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 2; ++i) lengths.insert(lengths.end(), {1, 64, 300, 130, 17, 128});
  check_everywhere(dtype, random_problem(dtype, {16, 4, size}, lengths));
}

BOOST_DATA_TEST_CASE(documents_of_a_training_sequence, data::make(reals()) * model_head_sizes, dtype, size) {
  check_everywhere(dtype, random_problem(dtype, {1, 1, size}, {4100}));
}

BOOST_DATA_TEST_CASE(heads_of_every_kind, data::make(machines_old_and_new()) * data::make(reals()), machine,
                     dtype) {
  for (const std::int64_t size : {2, 16, 20, 64, 128}) {
    for (const auto& [queries, keys] : {std::pair{1, 1}, {3, 3}, {3, 1}, {8, 2}}) {
      check(machine.get(), dtype, random_problem(dtype, {queries, keys, size}, {37, 70}));
    }
  }
}

BOOST_DATA_TEST_CASE(large_scores, data::make(machines_old_and_new()) * data::make(reals()) * head_sizes,
                     machine, dtype, size) {
  // Scores of some hundred: exp of them, unshifted, would be infinite. A running maximum moves all the time.
  check(machine.get(), dtype, random_problem(dtype, {2, 2, size}, {100, 200}, 8));
  check(machine.get(), dtype, random_problem(dtype, {4, 1, size}, {330}, 3));
}

BOOST_DATA_TEST_CASE(scores_that_grow_along_a_row, data::make(machines_old_and_new()) * head_sizes, machine,
                     size) {
  // The last key of each row weighs most, or the first: whichever way tiles are walked, the largest score so
  // far is outgrown again and again.
  Machine& m = machine.get();
  const AttentionShape shape{1, 1, size};
  constexpr std::int64_t t = 300;
  for (const bool rising : {false, true}) {
    auto values = random_values(t * shape.fused_columns(), DType::bf16, 46);
    for (std::int64_t row = 0; row < t; ++row)
      for (std::int64_t d = 0; d < size; ++d) {
        const auto at = static_cast<std::size_t>(row * shape.fused_columns() + d);
        const auto place = static_cast<float>(rising ? row : t - row);
        values[at] = 1;
        values[at + static_cast<std::size_t>(size)] = place * 0.25f / std::sqrt(static_cast<float>(size));
      }
    values = rounded(std::move(values), DType::bf16);
    const auto gradient = random_values(t * size, DType::bf16, 47);
    check(m, DType::bf16, Problem{shape, {t}, {values, gradient}, 75});
  }
}

BOOST_DATA_TEST_CASE(one_row_documents_return_their_value,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  Machine& m = machine.get();
  const AttentionShape shape{2, 2, size};
  const Documents documents(m, {1, 1, 1});
  const auto values = random_values(3 * shape.fused_columns(), dtype, 43);
  const Buffer out(m, dtype, {3, 2 * size}), lse(m, DType::fp32, {2, 3});
  m.kernels().attention_forward(Buffer(m, dtype, {3, shape.fused_columns()}, values), documents.rows(), shape,
                                out, lse, *m.stream);
  BOOST_CHECK(out.read() == FusedParts(values, shape).v);
}

BOOST_DATA_TEST_CASE(rows_never_see_other_documents_or_the_future,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  Machine& m = machine.get();
  const AttentionShape shape{4, 2, size};
  const Documents documents(m, {70, 30, 50});
  const std::int64_t columns = shape.fused_columns();
  auto values = random_values(150 * columns, dtype, 44);
  const auto run = [&] {
    const Buffer out(m, dtype, {150, 4 * size}), lse(m, DType::fp32, {4, 150});
    m.kernels().attention_forward(Buffer(m, dtype, {150, columns}, values), documents.rows(), shape, out, lse,
                                  *m.stream);
    return out.read();
  };
  const auto before = run();
  // Row 80 lies in the second document: only rows 80 to 99 may change, and each of them does.
  for (std::int64_t c = 0; c < columns; ++c) values[static_cast<std::size_t>(80 * columns + c)] += 1;
  const auto after = run();
  const auto width = static_cast<std::size_t>(4 * size);
  for (std::size_t t = 0; t < 150; ++t) {
    const bool same = std::equal(&before[t * width], &before[t * width] + width, &after[t * width]);
    BOOST_CHECK_EQUAL(same, t < 80 || t >= 100);
  }
}

BOOST_DATA_TEST_CASE(a_nan_reaches_those_who_see_it,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  Machine& m = machine.get();
  const AttentionShape shape{1, 1, size};
  const Documents documents(m, {20, 10});
  auto values = random_values(30 * 3 * size, dtype, 45);
  values[static_cast<std::size_t>(5 * 3 * size + size)] = std::numeric_limits<float>::quiet_NaN();
  const Buffer out(m, dtype, {30, size}), lse(m, DType::fp32, {1, 30});
  m.kernels().attention_forward(Buffer(m, dtype, {30, 3 * size}, values), documents.rows(), shape, out, lse,
                                *m.stream);
  const auto result = out.read();
  for (std::size_t t = 0; t < 30; ++t)
    BOOST_CHECK_EQUAL(std::isnan(result[t * static_cast<std::size_t>(size)]), t >= 5 && t < 20);
}

// All kernels promise the same bits for the same call, but for dQ on tensor cores, whose parts are added as
// they come: there the sums of many tiles of keys differ by the order of fp32 additions.
BOOST_DATA_TEST_CASE(the_same_call_gives_the_same_bits,
                     data::make(machines_old_and_new()) * data::make(reals()) * head_sizes, machine, dtype,
                     size) {
  Machine& m = machine.get();
  const AttentionShape shape{8, 2, size};
  const Documents documents(m, {300, 1, 129, 270});
  constexpr std::int64_t t = 700;
  const AttentionInputs inputs = random_inputs(shape, t, dtype);
  const AttentionOutputs first = run_attention(m, dtype, shape, documents, inputs);
  for (int repeat = 0; repeat < 4; ++repeat) {
    const AttentionOutputs again = run_attention(m, dtype, shape, documents, inputs);
    BOOST_TEST((again.out == first.out), "out differs");
    BOOST_TEST((again.lse == first.lse), "lse differs");
    BOOST_TEST((again.dk == first.dk), "dK differs");
    BOOST_TEST((again.dv == first.dv), "dV differs");
    if (dq_has_an_order(m, dtype, size))
      BOOST_TEST((again.dq == first.dq), "dQ differs");
    else
      // Few elements lie so near the middle between two numbers of bf16 that they round to the other.
      CHECK_AGREES("attention dQ again", again.dq, first.dq, Rows{{t, shape.query_heads}, {}, 4},
                   0.25 * tolerance(dtype, 1));
  }
}

/// Attention forward and backward in bf16 on random values.
struct Attention {
  std::vector<float> out, dqkv, dout;

  Attention(Machine& m, const AttentionShape& shape, const std::vector<std::int64_t>& lengths) {
    const std::int64_t t = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    const Documents documents(m, lengths);
    const Buffer qkv(m, DType::bf16, {t, shape.fused_columns()},
                     random_values(t * shape.fused_columns(), DType::bf16, 51));
    dout = random_values(t * shape.output_columns(), DType::bf16, 52);
    const Buffer gradient_of_out(m, DType::bf16, {t, shape.output_columns()}, dout);
    const Buffer result(m, DType::bf16, {t, shape.output_columns()}),
        lse(m, DType::fp32, {shape.query_heads, t});
    const Buffer gradient(m, DType::bf16, {t, shape.fused_columns()});
    const WorkspaceRequest request{.compute = DType::bf16, .tokens = t, .attention = shape};
    const Buffer workspace(m, DType::fp32,
                           {static_cast<std::int64_t>(m.kernels().workspace_bytes(request) / sizeof(float))});
    m.kernels().set_workspace(workspace);
    m.kernels().attention_forward(qkv, documents.rows(), shape, result, lse, *m.stream);
    m.kernels().attention_backward(qkv, documents.rows(), shape, result, lse, gradient_of_out, gradient,
                                   *m.stream);
    out = result.read();
    dqkv = gradient.read();
  }

  /// out * dout, whose sums over a head are the terms that dQ subtracts.
  std::vector<float> along_out() const {
    std::vector<float> products(out);
    for (std::size_t i = 0; i < products.size(); ++i) products[i] *= dout[i];
    return products;
  }
};

/// Of each row and head.
std::vector<double> norms(const std::vector<float>& values, const AttentionShape& shape) {
  std::vector<double> result(values.size() / static_cast<std::size_t>(shape.head_dim), 0);
  for (std::size_t i = 0; i < values.size(); ++i)
    result[i / static_cast<std::size_t>(shape.head_dim)] += double{values[i]} * values[i];
  for (double& norm : result) norm = std::sqrt(norm);
  return result;
}

// The models' shapes, for which the definition takes too long: blocks with several query heads, of which some
// share their sums.
BOOST_AUTO_TEST_CASE(new_and_older_gpus_agree, *needs("a GPU", [] { return gpu_available(); })) {
  const std::vector<std::pair<AttentionShape, std::vector<std::int64_t>>> cases = {
      {{32, 8, 128}, {4096}},      {{32, 8, 128}, {1000, 3096, 4096, 300}},
      {{16, 4, 128}, {4096}},      {{24, 8, 128}, {4000}},
      {{8, 2, 128}, {2000, 2096}}, {{32, 8, 64}, {4096}}};
  Machine newer(make_gpu()), older(make_gpu_of_old());
  for (const auto& [shape, lengths] : cases) {
    const Attention a(newer, shape, lengths), b(older, shape, lengths);
    BOOST_CHECK_LE(relative_error(std::span(a.out), std::span(b.out)), 3e-3);
    BOOST_CHECK_LE(relative_error(std::span(a.dqkv), std::span(b.dqkv)), 3e-3);
    const std::int64_t t = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    const FusedParts mine(a.dqkv, shape), theirs(b.dqkv, shape);
    // The difference of two results has the errors of both. Rows of dQ can be differences of equal terms,
    // each as large as out * dout.
    const double bound = 2 * tolerance(DType::bf16, 1);
    CHECK_AGREES("attention out", a.out, b.out, Rows{{t, shape.query_heads}}, bound);
    CHECK_AGREES("attention dQ", mine.q, theirs.q,
                 Rows{{t, shape.query_heads}, joined(norms(theirs.q, shape), norms(b.along_out(), shape))},
                 bound);
    CHECK_AGREES("attention dK", mine.k, theirs.k, Rows{{t, shape.key_value_heads}}, bound);
    CHECK_AGREES("attention dV", mine.v, theirs.v, Rows{{t, shape.key_value_heads}}, bound);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
