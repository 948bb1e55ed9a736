#include "bench/bench.hpp"

namespace llama3d {
namespace {

/// Rows of whole sequences, one document each.
DocumentRows documents_of(Laboratory& lab, const RunShape& run) {
  std::vector<std::int32_t> start, end, position;
  for (std::int64_t b = 0; b < run.micro_batch_size; ++b)
    for (std::int64_t i = 0; i < run.seq_length; ++i) {
      start.push_back(static_cast<std::int32_t>(b * run.seq_length));
      end.push_back(static_cast<std::int32_t>((b + 1) * run.seq_length));
      position.push_back(static_cast<std::int32_t>(i));
    }
  return {lab.integers(start), lab.integers(end), lab.integers(position)};
}

}  // namespace

double bench_attention(Laboratory& lab, const RunShape& run, const BenchSink& sink) {
  const StageShape s = bench_shape(run);
  const double ceiling = measured_gemm_rate(lab, s.compute());
  lab.set_workspace(s.workspace());
  const std::int64_t rows = run.micro_batch_size * run.seq_length;
  const AttentionShape& heads = s.attention;
  const auto prepare = [&](bool backward) -> std::function<void()> {
    const DocumentRows documents = documents_of(lab, run);
    const Tensor qkv = lab.normal(s.compute(), {rows, heads.fused_columns()});
    const Tensor out = lab.zeros(s.compute(), {rows, heads.output_columns()});
    const Tensor lse = lab.zeros(DType::fp32, {heads.query_heads, rows});
    const auto forward = [=, &lab] {
      lab.kernels().attention_forward(qkv, documents, heads, out, lse, lab.stream());
    };
    if (!backward) return forward;
    forward();
    const Tensor dout = lab.normal(s.compute(), {rows, heads.output_columns()});
    const Tensor dqkv = lab.zeros(s.compute(), {rows, heads.fused_columns()});
    return [=, &lab] {
      lab.kernels().attention_backward(qkv, documents, heads, out, lse, dout, dqkv, lab.stream());
    };
  };
  double total = 0;
  for (const bool backward : {false, true}) {
    BenchRow row;
    row.group = "attention";
    row.name = backward ? "backward" : "forward";
    row.shape = fmt::format("{} x {}, {} heads over {} of {}", run.micro_batch_size, run.seq_length,
                            heads.query_heads, heads.key_value_heads, heads.head_dim);
    row.dtype = std::string(name_of(s.compute()));
    row.seconds = lab.median_seconds(
        {[&] { return prepare(backward); }, static_cast<double>(rows * heads.fused_columns()) * 2.0 *
                                                static_cast<double>(size_of(s.compute()))});
    // Two GEMMs forward and five backward, each over half of the pairs of rows.
    const double pairs = static_cast<double>(rows) * static_cast<double>(run.seq_length) / 2;
    row.work = (backward ? 5 : 2) * 2.0 * pairs * static_cast<double>(heads.output_columns());
    row.unit = "FLOP";
    row.rate = row.work / row.seconds;
    row.ceiling = ceiling;
    row.fraction = row.rate / ceiling;
    sink(row);
    total += row.seconds * static_cast<double>(run.model.layers);
  }
  return total;
}

}  // namespace llama3d
