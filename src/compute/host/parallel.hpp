#pragma once
// How an operation is shared among the threads of a rank.

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace llama3d::host {

/// Most threads of one device; bounds the arrays of partial results.
inline constexpr int max_threads = 256;

/// Calls f(part, begin, end) for consecutive ranges that cover [0, n), one for each of up to `threads`
/// threads and none much smaller than `grain`. The ranges depend on n, grain and threads only. Returns the
/// number of parts.
template <class F>
int parallel_parts(int threads, std::int64_t n, std::int64_t grain, F&& f) {
  if (n <= 0) return 0;
  const int parts = static_cast<int>(std::clamp<std::int64_t>(n / grain, 1, threads));
  if (parts == 1) {
    f(0, std::int64_t{0}, n);
  } else {
#pragma omp parallel for schedule(static) num_threads(parts)
    for (int part = 0; part < parts; ++part) f(part, n * part / parts, n * (part + 1) / parts);
  }
  return parts;
}

/// The same for an f(begin, end) that does not care which part it is.
template <class F>
void parallel_ranges(int threads, std::int64_t n, std::int64_t grain, F&& f) {
  parallel_parts(threads, n, grain, [&](int, std::int64_t begin, std::int64_t end) { f(begin, end); });
}

/// Calls f(thread, item) for each item of [0, n) in no fixed order, for items of uneven cost.
template <class F>
void parallel_items(int threads, std::int64_t n, F&& f) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && n > 1)
  for (std::int64_t item = 0; item < n; ++item) f(omp_get_thread_num(), item);
}

/// Rows of so many elements a thread should get at least: below that, waking a thread costs more than it
/// saves.
inline std::int64_t rows_grain(std::int64_t columns) {
  return std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, columns));
}
inline constexpr std::int64_t elements_grain = 8192;

}  // namespace llama3d::host
