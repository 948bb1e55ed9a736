// Cross entropy over a vocabulary split among ranks.

#include <cmath>
#include <limits>

#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"
#include "compute/host/vector_math.hpp"

namespace llama3d::host {
namespace {

/// One row's softmax over the whole vocabulary.
struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;     ///< of exp(logit - largest)
  float target = 0;  ///< the target's logit
};

/// Joins what the shards know; `statistics` is the first shard's entry, the next shards' lie `stride` apart.
Softmax join(const float* statistics, std::int64_t shards, std::int64_t stride) {
  Softmax whole;
  for (std::int64_t s = 0; s < shards; ++s) whole.largest = std::max(whole.largest, statistics[s * stride]);
  for (std::int64_t s = 0; s < shards; ++s) {
    const float* shard = statistics + s * stride;
    // A shard without columns has sum 0 and largest -infinity: it adds nothing.
    if (shard[1] != 0) whole.sum += shard[1] * std::exp(shard[0] - whole.largest);
    whole.target += shard[2];
  }
  return whole;
}

template <class T>
float sum_of_exponentials(const T* logits, std::int64_t n, float largest) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += exponential(widen(logits[i]) - largest);
  return sum;
}

/// logits = softmax - [column is the target], padding 0. `target` is a local column or out of range.
template <class T>
void differentiate_row(T* logits, std::int64_t columns, std::int64_t width, const Softmax& whole,
                       std::int64_t target) {
  const float shift = whole.largest, scale = 1.0f / whole.sum;
  const bool here = target >= 0 && target < columns;
  const float expected = here ? exponential(widen(logits[target]) - shift) * scale - 1.0f : 0;
#pragma omp simd
  for (std::int64_t i = 0; i < columns; ++i) {
    logits[i] = narrow<T>(exponential(widen(logits[i]) - shift) * scale);
  }
  if (here) logits[target] = narrow<T>(expected);
  std::fill(logits + columns, logits + width, T(0.0f));
}

}  // namespace

void HostKernels::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets,
                                              std::int64_t first_id, std::int64_t columns,
                                              const Tensor& statistics, Stream&) {
  const std::int64_t rows = logits.rows(), width = logits.columns();
  with_type(logits.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* row = elements<T>(logits) + t * width;
        const std::int64_t target = elements<std::int32_t>(targets)[t] - first_id;
        float* out = elements<float>(statistics) + t * 3;
        out[0] = largest(row, columns);
        out[1] = sum_of_exponentials(row, columns, out[0]);
        out[2] = target >= 0 && target < columns ? widen(row[target]) : 0.0f;
      }
    });
  });
}

void HostKernels::do_cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                          std::int64_t columns, const Tensor& statistics, bool gradient,
                                          const Tensor& losses, const Tensor& totals, Stream&) {
  const std::int64_t rows = logits.rows(), width = logits.columns();
  const std::int64_t shards = rows == 0 ? 1 : statistics.elements() / (3 * rows);
  const std::int32_t* target = elements<std::int32_t>(targets);
  with_type(logits.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* row = elements<T>(logits) + t * width;
        const Softmax whole = join(elements<float>(statistics) + t * 3, shards, rows * 3);
        elements<float>(losses)[t] =
            target[t] < 0 ? 0.0f : std::log(whole.sum) + (whole.largest - whole.target);
        if (!gradient) continue;
        if (target[t] < 0) {
          std::fill_n(row, width, T(0.0f));
        } else {
          differentiate_row(row, columns, width, whole, target[t] - first_id);
        }
      }
    });
  });
  // In one thread and in order: the sum does not depend on how rows were shared.
  double sum = 0, count = 0;
  for (std::int64_t t = 0; t < rows; ++t) {
    sum += elements<float>(losses)[t];
    count += target[t] >= 0;
  }
  elements<double>(totals)[0] += sum;
  elements<double>(totals)[1] += count;
}

}  // namespace llama3d::host
