#include "compute/host/checks.hpp"

namespace llama3d::host {

void expect_whole_documents(const DocumentRows& documents, std::int64_t rows) {
  const auto* start = static_cast<const std::int32_t*>(documents.start.data());
  const auto* end = static_cast<const std::int32_t*>(documents.end.data());
  for (std::int64_t t = 0; t < rows; ++t) {
    const bool first = t == 0 || end[t - 1] == t;
    const bool consistent = first ? start[t] == t && end[t] > t && end[t] <= rows
                                  : start[t] == start[t - 1] && end[t] == end[t - 1];
    LLAMA3D_EXPECT(consistent, "row {} lies in [{}, {}), which does not continue the documents before it", t,
                   start[t], end[t]);
  }
}

void expect_positions(const DocumentRows& documents, std::int64_t table_rows) {
  const auto* position = static_cast<const std::int32_t*>(documents.position.data());
  for (std::int64_t t = 0; t < documents.position.elements(); ++t)
    LLAMA3D_EXPECT(position[t] >= 0 && position[t] < table_rows, "row {} has position {} of {}", t,
                   position[t], table_rows);
}

void expect_cached(const CacheRows& rows, const Tensor& cache) {
  const auto* slot = static_cast<const std::int32_t*>(rows.slot.data());
  const auto* position = static_cast<const std::int32_t*>(rows.position.data());
  for (std::int64_t t = 0; t < rows.slot.elements(); ++t)
    LLAMA3D_EXPECT(
        slot[t] < 0 || (slot[t] < cache.shape()[0] && position[t] >= 0 && position[t] < cache.shape()[1]),
        "row {} is token {} of slot {}, in a cache of {}", t, position[t], slot[t],
        cache.shape().to_string());
}

}  // namespace llama3d::host
