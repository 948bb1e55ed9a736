#pragma once
// The file of `llama3d bench`: one compound table /bench that h5py and pandas.read_hdf read as it is, and
// what it was measured on as attributes.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace llama3d {

/// One measured operation. Text fields are UTF-8, cut to fit.
struct BenchRow {
  std::string group, name, shape, dtype;
  double seconds = 0;   ///< median of one call
  double work = 0;      ///< floating-point operations, bytes that must move, or tokens, as `unit` says
  std::string unit;     ///< "FLOP", "byte" or "token"
  double rate = 0;      ///< work / seconds
  double ceiling = 0;   ///< best rate measured in the same run
  double fraction = 0;  ///< rate / ceiling
};

/// Whether there is a file to write, to be known before anything is measured. Leaves nothing. Both throw
/// Error (exit status 1) where the file can't be written.
void check_bench_file(const std::filesystem::path& path);
/// Replaces what had the name before, whole or not at all.
void write_bench_file(const std::filesystem::path& path, const std::vector<BenchRow>& rows,
                      const std::map<std::string, std::string>& attributes);

}  // namespace llama3d
