// Gradient norm, clipping and AdamW.

#include <array>
#include <bit>
#include <cmath>

#include "base/philox.hpp"
#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {

namespace {

template <class G>
double sum_of_squares(const G* values, std::int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = widen(values[i]);
    sum += value * value;
  }
  return sum;
}

}  // namespace

void HostKernels::do_squared_norm(const Tensor& in, const Tensor& sum, Stream&) {
  std::array<double, max_threads> partial{};
  with_type(in.dtype(), [&]<class G>(G) {
    parallel_parts(
        threads_, in.elements(), elements_grain, [&](int part, std::int64_t begin, std::int64_t end) {
          partial[static_cast<std::size_t>(part)] = sum_of_squares(elements<G>(in) + begin, end - begin);
        });
  });
  double total = 0;
  for (const double part : partial) total += part;
  elements<double>(sum)[0] += total;
}

void HostKernels::do_gradient_scale(const Tensor& totals, float max_norm, const Tensor& scale,
                                    const Tensor& report, Stream&) {
  const double* total = elements<double>(totals);
  const double targets = total[2];
  const double norm = std::sqrt(total[0]) / targets, loss = total[1] / targets;
  double factor = 0;
  if (targets > 0 && std::isfinite(norm) && std::isfinite(loss)) {
    factor = 1 / targets;
    if (max_norm > 0) factor *= std::min(1.0, max_norm / (norm + 1e-6));
  }
  elements<float>(scale)[0] = static_cast<float>(factor);
  elements<float>(report)[0] = static_cast<float>(loss);
  elements<float>(report)[1] = static_cast<float>(norm);
}

namespace {

/// Constants of a step, rounded once from double.
struct Update {
  float scale, beta1, beta2, keep1, keep2, epsilon;
  float decay;      ///< what weight decay leaves: 1 - learning rate * weight decay
  float rate;       ///< learning rate / (1 - beta1^step)
  float root_bias;  ///< 1 / sqrt(1 - beta2^step)

  Update(const AdamWStep& step, float weight_decay, float gradient_scale)
      : scale(gradient_scale),
        beta1(step.beta1),
        beta2(step.beta2),
        keep1(static_cast<float>(1.0 - static_cast<double>(step.beta1))),
        keep2(static_cast<float>(1.0 - static_cast<double>(step.beta2))),
        epsilon(step.epsilon),
        decay(static_cast<float>(1.0 - static_cast<double>(step.learning_rate) * weight_decay)),
        rate(
            static_cast<float>(step.learning_rate / (1.0 - std::pow(double{step.beta1}, double(step.step))))),
        root_bias(
            static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(double{step.beta2}, double(step.step))))) {}

  [[gnu::always_inline]] void apply(float gradient, float& weight, float& average, float& square) const {
    const float g = gradient * scale;
    average = beta1 * average + keep1 * g;
    square = beta2 * square + keep2 * g * g;
    weight = weight * decay - rate * average / (std::sqrt(square) * root_bias + epsilon);
  }
};

/// Rounds away from zero with the probability of the fraction cut off; 16 random bits decide.
template <class T>
T narrow_randomly(float value, std::uint32_t random) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    if (!std::isfinite(value)) return bf16(value);
    bf16 rounded;
    rounded.bits =
        static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(value) + (random & 0xffffu)) >> 16);
    return rounded;
  }
}

template <class P, class G, class M>
struct States {
  P* parameter;
  float* master;  ///< or null
  const G* gradient;
  M* average;
  M* square;

  States at(const AdamWPiece& piece) const {
    return {parameter + piece.parameter_begin, master ? master + piece.state_begin : nullptr,
            gradient + piece.parameter_begin, average + piece.state_begin, square + piece.state_begin};
  }
};

/// All states fp32, or bf16 only where rounding is to nearest: one simd loop.
template <class P, class G>
void update_plain(const Update& update, const States<P, G, float>& s, float* weights, std::int64_t begin,
                  std::int64_t end) {
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    float weight = weights[i], average = s.average[i], square = s.square[i];
    update.apply(widen(s.gradient[i]), weight, average, square);
    weights[i] = weight;
    s.average[i] = average;
    s.square[i] = square;
    if constexpr (std::is_same_v<P, bf16>) s.parameter[i] = narrow<bf16>(weight);
  }
}

/// Element by element with random rounding; see Kernels::adamw for the bits.
template <class P, class G, class M>
void update_rounding(const Update& update, const AdamWStep& step, const AdamWPiece& piece,
                     const States<P, G, M>& s, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const auto index = static_cast<std::uint64_t>(piece.global_index(i));
    const auto bits = philox4x32(piece.rounding_key, index / 2, static_cast<std::uint64_t>(step.step));
    const std::size_t half = 2 * (index % 2);
    float weight = s.master ? s.master[i] : widen(s.parameter[i]);
    float average = widen(s.average[i]), square = widen(s.square[i]);
    update.apply(widen(s.gradient[i]), weight, average, square);
    s.average[i] = narrow_randomly<M>(average, bits[half]);
    s.square[i] = narrow_randomly<M>(square, bits[half] >> 16);
    if (s.master) {
      s.master[i] = weight;
      s.parameter[i] = narrow<P>(weight);
    } else {
      s.parameter[i] = narrow_randomly<P>(weight, bits[half + 1]);
    }
  }
}

template <class P, class G, class M>
void update_range(const Update& update, const AdamWStep& step, const AdamWPiece& piece,
                  const States<P, G, M>& s, std::int64_t begin, std::int64_t end) {
  if constexpr (std::is_same_v<M, float>) {
    if (s.master && std::is_same_v<P, bf16>) return update_plain(update, s, s.master, begin, end);
    if constexpr (std::is_same_v<P, float>) {
      if (!s.master) return update_plain(update, s, s.parameter, begin, end);
    }
  }
  update_rounding(update, step, piece, s, begin, end);
}

}  // namespace

void HostKernels::do_adamw(const AdamWStep& step, std::span<const AdamWPiece> pieces, const Tensor& parameter,
                           const Tensor& master, const Tensor& gradient, const Tensor& exp_avg,
                           const Tensor& exp_avg_sq, const Tensor& scale, Stream&) {
  const float factor = elements<float>(scale)[0];
  if (factor == 0) return;
  with_type(parameter.dtype(), [&]<class P>(P) {
    with_type(gradient.dtype(), [&]<class G>(G) {
      with_type(exp_avg.dtype(), [&]<class M>(M) {
        const States<P, G, M> all{elements<P>(parameter), master ? elements<float>(master) : nullptr,
                                  elements<G>(gradient), elements<M>(exp_avg), elements<M>(exp_avg_sq)};
        for (const AdamWPiece& piece : pieces) {
          const Update update(step, piece.weight_decay, factor);
          const auto states = all.at(piece);
          parallel_ranges(threads_, piece.elements, elements_grain,
                          [&](std::int64_t begin, std::int64_t end) {
                            update_range(update, step, piece, states, begin, end);
                          });
        }
      });
    });
  });
}

}  // namespace llama3d::host
