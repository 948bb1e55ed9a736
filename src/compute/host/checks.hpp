#pragma once
// What only the host can check before it computes: the rows of documents. Kept out of the kernel files: those
// are compiled for newer CPUs, and the formatting code that messages need must stay runnable on every one.

#include "compute/kernels.hpp"

namespace llama3d::host {

/// Documents are contiguous and inside the rows.
void expect_whole_documents(const DocumentRows& documents, std::int64_t rows);
/// Every position lies in a table of so many rows.
void expect_positions(const DocumentRows& documents, std::int64_t table_rows);

/// Every row's place lies in the cache, or the row is padding.
void expect_cached(const CacheRows& rows, const Tensor& cache);

}  // namespace llama3d::host
