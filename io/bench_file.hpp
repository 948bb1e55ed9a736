#pragma once
// The file of `llama3d bench`: one compound table /bench that h5py and pandas.read_hdf read as it is, and
// what it was measured on as attributes.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
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

/// Begun before what it tells of is measured, so that an output that can't be written is known by then;
/// without finish() nothing is left. Throws Error (exit status 1) when the file can't be written.
class BenchFile {
 public:
  explicit BenchFile(const std::filesystem::path& path);
  ~BenchFile();
  BenchFile(const BenchFile&) = delete;
  BenchFile& operator=(const BenchFile&) = delete;

  /// Writes it all, and replaces what had the name before.
  void finish(const std::vector<BenchRow>& rows, const std::map<std::string, std::string>& attributes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llama3d
