// The embedding of a vocabulary shard.

#include <algorithm>

#include "compute/host/elements.hpp"
#include "compute/host/host_kernels.hpp"
#include "compute/host/parallel.hpp"

namespace llama3d::host {

std::int64_t embedding_scratch(const WorkspaceRequest& request) {
  Scratch count;
  count.take(request.tokens, "");
  count.take(request.hidden, "");
  return count.used();
}

void HostKernels::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first_id,
                                       const Tensor& out, Stream&) {
  const std::int64_t rows = out.rows(), n = table.columns();
  with_type(table.dtype(), [&]<class T>(T) {
    parallel_ranges(threads_, rows, rows_grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t row = elements<std::int32_t>(ids)[t] - first_id;
        T* to = elements<T>(out) + t * n;
        if (row >= 0 && row < table.rows()) {
          std::copy_n(elements<T>(table) + row * n, n, to);
        } else {
          std::fill_n(to, n, T(0.0f));
        }
      }
    });
  });
}

namespace {

/// Adds columns [begin, end) of dout to dtable. `order` holds the rows by id, then by place: each table row
/// is summed whole, in that order, and rounded once. `sum` is (C) fp32.
template <class T, class G>
void scatter_columns(const std::int32_t* ids, const std::int32_t* order, std::int64_t rows, const T* dout,
                     std::int64_t first_id, G* dtable, std::int64_t vocabulary, std::int64_t n, float* sum,
                     std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = 0; i < rows;) {
    const std::int32_t id = ids[order[i]];
    const std::int64_t row = id - first_id;
    if (row < 0 || row >= vocabulary) {
      ++i;
      continue;
    }
    G* total = dtable + row * n;
    widen_row(total + begin, sum + begin, end - begin);
    for (; i < rows && ids[order[i]] == id; ++i) {
      const T* gradient = dout + order[i] * n;
#pragma omp simd
      for (std::int64_t c = begin; c < end; ++c) sum[c] += widen(gradient[c]);
    }
    narrow_row(sum + begin, total + begin, end - begin);
  }
}

}  // namespace

void HostKernels::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first_id,
                                        const Tensor& dtable, Stream&) {
  const std::int64_t rows = dout.rows(), n = dout.columns();
  if (rows == 0) return;
  Scratch space = scratch();
  auto* order = reinterpret_cast<std::int32_t*>(space.take(rows, "embedding_backward"));
  float* sum = space.take(n, "embedding_backward");
  const std::int32_t* id = elements<std::int32_t>(ids);
  for (std::int64_t t = 0; t < rows; ++t) order[t] = static_cast<std::int32_t>(t);
  std::sort(order, order + rows,
            [&](std::int32_t a, std::int32_t b) { return id[a] != id[b] ? id[a] < id[b] : a < b; });
  // Threads share the columns: every element of the table has one owner.
  with_type(dout.dtype(), [&]<class T>(T) {
    with_type(dtable.dtype(), [&]<class G>(G) {
      parallel_ranges(threads_, n, 64, [&](std::int64_t begin, std::int64_t end) {
        scatter_columns(id, order, rows, elements<T>(dout), first_id, elements<G>(dtable), dtable.rows(), n,
                        sum, begin, end);
      });
    });
  });
}

}  // namespace llama3d::host
