#include <array>

#include "bench/bench.hpp"

namespace llama3d {
namespace {

struct Gemm {
  const char* name;
  std::int64_t features_in, features_out, count;  ///< K, N, how many of the model
};

std::array<Gemm, 5> gemms_of(const RunShape& run, const StageShape& s) {
  const std::int64_t layers = run.model.layers;
  return {{{"qkv", s.hidden, s.attention.fused_columns(), layers},
           {"attention output", s.attention.output_columns(), s.hidden, layers},
           {"gate and up", s.hidden, 2 * s.feed_forward, layers},
           {"down", s.feed_forward, s.hidden, layers},
           {"head", s.hidden, s.vocabulary, 1}}};
}

enum class Pass { forward, input_gradient, weight_gradient };

std::function<void()> prepare(Laboratory& lab, Pass pass, const StageShape& s, const Gemm& p,
                              std::int64_t rows) {
  const Tensor x = lab.normal(s.compute(), {rows, p.features_in});
  const Tensor y = lab.normal(s.compute(), {rows, p.features_out});
  const Tensor w = pass == Pass::weight_gradient
                       ? lab.zeros(s.gradient, {p.features_out, p.features_in})
                       : lab.normal(s.compute(), {p.features_out, p.features_in}, 0.02f);
  Kernels& k = lab.kernels();
  Stream& stream = lab.stream();
  switch (pass) {
    case Pass::forward: return [=, &k, &stream] { k.linear_forward(x, w, y, stream); };
    case Pass::input_gradient: return [=, &k, &stream] { k.linear_backward_input(y, w, x, stream); };
    default: return [=, &k, &stream] { k.linear_backward_weight(y, x, w, stream); };
  }
}

}  // namespace

StageShape bench_shape(const RunShape& run) {
  StageShape shape =
      StageShape::make(run.model, run.grid.size(Axis::tensor), run.micro_batch_size, run.seq_length);
  shape.precision = run.precision;
  shape.gradient = run.gradient_dtype;
  shape.recompute = run.recompute;
  return shape;
}

double bench_gemms(Laboratory& lab, const RunShape& run, const BenchSink& sink) {
  const StageShape s = bench_shape(run);
  const double ceiling = measured_gemm_rate(lab, s.compute());
  lab.set_workspace(s.workspace());
  double total = 0;
  for (const Gemm& p : gemms_of(run, s))
    for (const auto& [pass, name] : {std::pair{Pass::forward, "forward"},
                                     {Pass::input_gradient, "input gradient"},
                                     {Pass::weight_gradient, "weight gradient"}}) {
      // The head runs on chunks of rows; one chunk stands for all.
      const auto chunk =
          static_cast<std::int64_t>(lab.kernels().logits_bytes() / size_of(s.compute())) / p.features_out;
      const std::int64_t rows = p.count == 1 ? std::clamp<std::int64_t>(chunk, 1, s.rows) : s.rows;
      const auto elements =
          static_cast<double>(rows * (p.features_in + p.features_out) + p.features_in * p.features_out);
      BenchRow row;
      row.group = "gemm";
      row.name = fmt::format("{}, {}", p.name, name);
      row.shape = fmt::format("{} x {} -> {}", rows, p.features_in, p.features_out);
      row.dtype = std::string(name_of(s.compute()));
      if (pass == Pass::weight_gradient) row.dtype += fmt::format(" into {}", name_of(s.gradient));
      row.seconds = lab.median_seconds({[&, pass = pass] { return prepare(lab, pass, s, p, rows); },
                                        elements * static_cast<double>(size_of(s.compute()))});
      row.unit = "FLOP";
      row.work = 2.0 * static_cast<double>(rows) * static_cast<double>(p.features_in) *
                 static_cast<double>(p.features_out);
      row.rate = row.work / row.seconds;
      row.ceiling = ceiling;
      row.fraction = row.rate / ceiling;
      sink(row);
      total += row.seconds * static_cast<double>(p.count) * static_cast<double>(s.rows) /
               static_cast<double>(rows);
    }
  return total;
}

}  // namespace llama3d
