// Moving, adding and drawing elements.

#include <cmath>
#include <cstring>
#include <numbers>

#include "base/philox.hpp"
#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {

void HostKernels::do_fill_zero(const Tensor& out, Stream&) {
  auto* bytes = static_cast<std::byte*>(out.data());
  parallel_ranges(threads_, static_cast<std::int64_t>(out.bytes()), 4 * elements_grain,
                  [&](std::int64_t begin, std::int64_t end) {
                    std::memset(bytes + begin, 0, static_cast<std::size_t>(end - begin));
                  });
}

void HostKernels::do_copy(const Tensor& in, const Tensor& out, Stream&) {
  with_type(in.dtype(), [&]<class In>(In) {
    with_type(out.dtype(), [&]<class Out>(Out) {
      const In* from = elements<In>(in);
      Out* to = elements<Out>(out);
      parallel_ranges(threads_, in.elements(), elements_grain, [&](std::int64_t begin, std::int64_t end) {
        if constexpr (std::is_same_v<In, Out>) {
          std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin) * sizeof(In));
        } else {
#pragma omp simd
          for (std::int64_t i = begin; i < end; ++i) to[i] = narrow<Out>(widen(from[i]));
        }
      });
    });
  });
}

void HostKernels::do_add(const Tensor& a, const Tensor& b, const Tensor& out, Stream&) {
  with_type(a.dtype(), [&]<class T>(T) {
    const T* first = elements<T>(a);
    const T* second = elements<T>(b);
    T* sum = elements<T>(out);
    parallel_ranges(threads_, a.elements(), elements_grain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) sum[i] = narrow<T>(widen(first[i]) + widen(second[i]));
    });
  });
}

namespace {

/// Box-Muller: two normal deviates from two words; u in (0, 1], v in [0, 1), both exact multiples of 2^-24.
void normal_pair(std::uint32_t first, std::uint32_t second, float* out) {
  const float u = static_cast<float>((first >> 8) + 1) * 0x1p-24f;
  const float v = static_cast<float>(second >> 8) * 0x1p-24f;
  const float radius = std::sqrt(-2.0f * std::log(u));
  const float angle = 2 * std::numbers::pi_v<float> * v;
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

/// Elements [first, first + count) of the global sequence of deviates.
template <class T>
void draw_normal(T* out, std::int64_t first, std::int64_t count, std::uint64_t key, float deviation) {
  for (std::int64_t block = first / 4; block * 4 < first + count; ++block) {
    const PhiloxBlock bits = philox4x32(key, static_cast<std::uint64_t>(block));
    float deviates[4];
    normal_pair(bits[0], bits[1], deviates);
    normal_pair(bits[2], bits[3], deviates + 2);
    for (std::int64_t i = 0; i < 4; ++i) {
      const std::int64_t at = block * 4 + i - first;
      if (at >= 0 && at < count) out[at] = narrow<T>(deviates[i] * deviation);
    }
  }
}

}  // namespace

void HostKernels::do_fill_normal(const Tensor& out, std::uint64_t key, std::int64_t first_row,
                                 std::int64_t first_column, std::int64_t global_columns,
                                 float standard_deviation, Stream&) {
  const std::int64_t rows = out.rows(), columns = out.columns();
  with_type(out.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(columns), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        draw_normal(elements<T>(out) + i * columns, (first_row + i) * global_columns + first_column, columns,
                    key, standard_deviation);
      }
    });
  });
}

}  // namespace llama3d::host
