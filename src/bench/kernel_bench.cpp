#include "bench/bench.hpp"

namespace llama3d {
namespace {

/// The sizes that cases share, and the laboratory that runs them.
struct Bench {
  Laboratory& lab;
  const BenchSink& sink;
  StageShape s;
  std::int64_t vocabulary;  ///< of the whole model
  double ceiling;

  Kernels& kernels() const { return lab.kernels(); }
  Stream& stream() const { return lab.stream(); }
  double element() const { return static_cast<double>(size_of(s.compute())); }
  Tensor activations(std::int64_t columns) const { return lab.normal(s.compute(), {s.rows, columns}); }

  /// `bytes`: the floor, each input read once and each output written once.
  void measure(const std::string& name, const std::string& shape, const std::string& dtype, double bytes,
               const std::function<std::function<void()>()>& prepare) const {
    BenchRow row;
    row.group = "kernels";
    row.name = name;
    row.shape = shape;
    row.dtype = dtype;
    row.seconds = lab.median_seconds({prepare, bytes});
    row.work = bytes;
    row.unit = "byte";
    row.rate = bytes / row.seconds;
    row.ceiling = ceiling;
    row.fraction = row.rate / ceiling;
    sink(row);
  }
  void measure(const std::string& name, std::int64_t rows, std::int64_t columns, double bytes_an_element,
               const std::function<std::function<void()>()>& prepare) const {
    measure(name, fmt::format("{} x {}", rows, columns), std::string(name_of(s.compute())),
            bytes_an_element * static_cast<double>(rows) * static_cast<double>(columns), prepare);
  }
};

void bench_elements(const Bench& b) {
  const std::int64_t c = b.s.hidden;
  b.measure("add", b.s.rows, c, 3 * b.element(), [&] {
    const Tensor x = b.activations(c), y = b.activations(c), out = b.activations(c);
    return [&b, x, y, out] { b.kernels().add(x, y, out, b.stream()); };
  });
}

void bench_norms(const Bench& b) {
  const std::int64_t c = b.s.hidden, t = b.s.rows;
  const auto weight = [&b, c] { return b.lab.normal(b.s.compute(), {c}); };
  const auto column = [&b, t] { return b.lab.zeros(DType::fp32, {t}); };
  b.measure("rms_norm_forward", t, c, 2 * b.element(), [&] {
    const Tensor x = b.activations(c), w = weight(), y = b.activations(c), rstd = column();
    return [&b, x, w, y, rstd] { b.kernels().rms_norm_forward(x, w, 1e-5f, y, rstd, b.stream()); };
  });
  b.measure("add_rms_norm_forward", t, c, 4 * b.element(), [&] {
    const Tensor x = b.activations(c), delta = b.activations(c), sum = b.activations(c), y = b.activations(c);
    const Tensor w = weight(), rstd = column();
    return [&b, x, delta, sum, y, w, rstd] {
      b.kernels().add_rms_norm_forward(x, delta, w, 1e-5f, sum, y, rstd, b.stream());
    };
  });
  b.measure("rms_norm_backward", t, c, 4 * b.element(), [&] {
    const Tensor dy = b.activations(c), x = b.activations(c), around = b.activations(c), w = weight();
    const Tensor y = b.activations(c), rstd = column(), dw = b.lab.zeros(b.s.gradient, {c});
    b.kernels().rms_norm_forward(x, w, 1e-5f, y, rstd, b.stream());
    return [&b, dy, x, around, w, rstd, dw] {
      b.kernels().rms_norm_backward(dy, x, w, rstd, around, around, dw, b.stream());
    };
  });
}

void bench_rope(const Bench& b) {
  const AttentionShape& heads = b.s.attention;
  const std::int64_t rotated = (heads.query_heads + heads.key_value_heads) * heads.head_dim;
  for (const bool backward : {false, true})
    b.measure(backward ? "rope_backward" : "rope_forward", b.s.rows, rotated, 2 * b.element(), [&, backward] {
      const Tensor qkv = b.activations(heads.fused_columns());
      const Tensor table = b.lab.normal(DType::fp32, {b.s.positions, heads.head_dim});
      const Tensor position = b.lab.random_ids(b.s.rows, b.s.positions);
      const DocumentRows documents{position, position, position};
      return [&b, &heads, backward, qkv, table, documents] {
        if (backward)
          b.kernels().rope_backward(qkv, documents, table, heads, b.stream());
        else
          b.kernels().rope_forward(qkv, documents, table, heads, b.stream());
      };
    });
}

/// What some architectures have beside the projections of attention.
void bench_heads(const Bench& b) {
  const AttentionShape& shape = b.s.attention;
  const std::int64_t columns = shape.fused_columns(), heads = shape.query_heads + shape.key_value_heads;
  if (b.s.qkv_bias) {
    b.measure("add_bias", b.s.rows, columns, 2 * b.element(), [&] {
      const Tensor y = b.activations(columns), bias = b.lab.normal(b.s.compute(), {columns});
      return [&b, y, bias] { b.kernels().add_bias(y, bias, b.stream()); };
    });
    b.measure("bias_backward", b.s.rows, columns, b.element(), [&] {
      const Tensor dy = b.activations(columns), db = b.lab.zeros(b.s.gradient, {columns});
      return [&b, dy, db] { b.kernels().bias_backward(dy, db, b.stream()); };
    });
  }
  if (!b.s.head_norm) return;
  for (const bool backward : {false, true})
    b.measure(backward ? "head_norm_backward" : "head_norm_forward", b.s.rows, heads * shape.head_dim,
              3 * b.element(), [&, backward] {
                const Tensor qkv = b.activations(columns), raw = b.activations(heads * shape.head_dim);
                const Tensor wq = b.lab.normal(b.s.compute(), {shape.head_dim}),
                             wk = b.lab.normal(b.s.compute(), {shape.head_dim});
                const Tensor rstd = b.lab.normal(DType::fp32, {b.s.rows, heads}),
                             dwq = b.lab.zeros(b.s.gradient, {shape.head_dim}),
                             dwk = b.lab.zeros(b.s.gradient, {shape.head_dim});
                return [&b, &shape, backward, qkv, raw, wq, wk, rstd, dwq, dwk] {
                  if (backward)
                    b.kernels().head_norm_backward(qkv, raw, wq, wk, rstd, shape, dwq, dwk, b.stream());
                  else
                    b.kernels().head_norm_forward(qkv, wq, wk, 1e-6f, shape, raw, rstd, b.stream());
                };
              });
}

void bench_swiglu(const Bench& b) {
  const std::int64_t f = b.s.feed_forward;
  b.measure("swiglu_forward", b.s.rows, f, 3 * b.element(), [&] {
    const Tensor gate_up = b.activations(2 * f), h = b.activations(f);
    return [&b, gate_up, h] { b.kernels().swiglu_forward(gate_up, h, b.stream()); };
  });
  b.measure("swiglu_backward", b.s.rows, f, 5 * b.element(), [&] {
    const Tensor gate_up = b.activations(2 * f), dh = b.activations(f), d = b.activations(2 * f);
    return [&b, gate_up, dh, d] { b.kernels().swiglu_backward(gate_up, dh, d, {}, b.stream()); };
  });
  b.measure("swiglu_backward and forward", b.s.rows, f, 6 * b.element(), [&] {
    const Tensor gate_up = b.activations(2 * f), dh = b.activations(f), d = b.activations(2 * f);
    const Tensor h = b.activations(f);
    return [&b, gate_up, dh, d, h] { b.kernels().swiglu_backward(gate_up, dh, d, h, b.stream()); };
  });
}

void bench_embedding(const Bench& b) {
  const std::int64_t c = b.s.hidden;
  b.measure("embedding_forward", b.s.rows, c, 2 * b.element(), [&] {
    const Tensor ids = b.lab.random_ids(b.s.rows, b.vocabulary), out = b.activations(c);
    const Tensor table = b.lab.normal(b.s.compute(), {b.s.vocabulary, c});
    return [&b, ids, table, out] { b.kernels().embedding_forward(ids, table, 0, out, b.stream()); };
  });
  // With random ids nearly every row of the gradient is another row of the table: read, added to, written.
  const auto gradient = static_cast<double>(size_of(b.s.gradient));
  b.measure("embedding_backward", b.s.rows, c, b.element() + 2 * gradient, [&] {
    const Tensor ids = b.lab.random_ids(b.s.rows, b.vocabulary), dout = b.activations(c);
    const Tensor table = b.lab.zeros(b.s.gradient, {b.s.vocabulary, c});
    return [&b, ids, dout, table] { b.kernels().embedding_backward(ids, dout, 0, table, b.stream()); };
  });
}

void bench_loss(const Bench& b) {
  const std::int64_t v = b.s.vocabulary;
  const auto chunk = static_cast<std::int64_t>(b.kernels().logits_bytes() / size_of(b.s.compute())) / v;
  const std::int64_t rows = std::clamp<std::int64_t>(chunk, 1, b.s.rows);
  const auto prepare = [&](bool finish) -> std::function<void()> {
    const Tensor logits = b.lab.normal(b.s.compute(), {rows, v}),
                 targets = b.lab.random_ids(rows, b.vocabulary);
    const Tensor statistics = b.lab.zeros(DType::fp32, {1, rows, 3}),
                 losses = b.lab.zeros(DType::fp32, {rows});
    const Tensor totals = b.lab.zeros(DType::fp64, {2});
    const auto first = [&b, logits, targets, statistics, v] {
      b.kernels().cross_entropy_statistics(logits, targets, 0, v, statistics.flat(), b.stream());
    };
    if (!finish) return first;
    first();
    return [&b, logits, targets, statistics, losses, totals, v] {
      b.kernels().cross_entropy_finish(logits, targets, 0, v, statistics, true, losses, totals, b.stream());
    };
  };
  b.measure("cross_entropy_statistics", rows, v, b.element(), [&] { return prepare(false); });
  b.measure("cross_entropy_finish", rows, v, 2 * b.element(), [&] { return prepare(true); });
}

struct AdamWCase {
  DType parameter, gradient, moments;
  bool master;
};

void bench_optimizer(const Bench& b) {
  // About the parameters of one layer of an 8B model.
  const std::int64_t rows = 4096, n = rows * std::min<std::int64_t>(4 * b.s.feed_forward, 53248);
  b.measure(
      "squared_norm", fmt::format("{}", n), std::string(name_of(b.s.gradient)),
      static_cast<double>(n) * static_cast<double>(size_of(b.s.gradient)), [&] {
        const Tensor in = b.lab.normal(b.s.gradient, {rows, n / rows}), sum = b.lab.zeros(DType::fp64, {1});
        return [&b, in, sum] { b.kernels().squared_norm(in, sum, b.stream()); };
      });
  using enum DType;
  for (const AdamWCase& c : {AdamWCase{fp32, fp32, fp32, false},
                             {bf16, fp32, fp32, true},
                             {bf16, bf16, bf16, true},
                             {bf16, bf16, bf16, false}}) {
    const double bytes = 2.0 * static_cast<double>(size_of(c.parameter)) +
                         static_cast<double>(size_of(c.gradient)) +
                         4.0 * static_cast<double>(size_of(c.moments)) + (c.master ? 8.0 : 0.0) -
                         (c.master ? static_cast<double>(size_of(c.parameter)) : 0.0);
    const std::string dtype = fmt::format("{} {} {}{}", name_of(c.parameter), name_of(c.gradient),
                                          name_of(c.moments), c.master ? " +master" : "");
    b.measure("adamw", fmt::format("{}", n), dtype, bytes * static_cast<double>(n), [&, c] {
      const Shape shape{rows, n / rows};
      const Tensor w = b.lab.normal(c.parameter, shape), g = b.lab.normal(c.gradient, shape);
      const Tensor average = b.lab.normal(c.moments, shape), square = b.lab.zeros(c.moments, shape);
      const Tensor master = c.master ? b.lab.normal(fp32, shape) : Tensor();
      const Tensor scale = b.lab.normal(fp32, {1});
      AdamWStep step;
      step.learning_rate = 1e-4f;
      const AdamWPiece piece{
          .elements = n, .weight_decay = 0.1f, .columns = n / rows, .global_columns = n / rows};
      return [&b, step, piece, w, master, g, average, square, scale] {
        b.kernels().adamw(step, {&piece, 1}, w, master, g, average, square, scale, b.stream());
      };
    });
  }
}

}  // namespace

void bench_kernels(Laboratory& lab, const RunShape& run, const BenchSink& sink) {
  const double ceiling = measured_copy_rate(lab);
  const StageShape s = bench_shape(run);
  lab.set_workspace(s.workspace());
  BenchRow copy;
  copy.group = "kernels";
  copy.name = "copy";
  copy.shape = "the ceiling";
  copy.dtype = "fp32";
  copy.unit = "byte";
  copy.rate = copy.ceiling = ceiling;
  copy.fraction = 1;
  const double bytes = 2.0 * (std::int64_t{1} << 30);
  copy.work = bytes;
  copy.seconds = bytes / ceiling;
  sink(copy);
  const Bench b{lab, sink, s, run.model.vocabulary, ceiling};
  bench_elements(b);
  bench_norms(b);
  bench_heads(b);
  bench_rope(b);
  bench_swiglu(b);
  bench_embedding(b);
  bench_loss(b);
  bench_optimizer(b);
}

}  // namespace llama3d
