#pragma once
// The algorithms chosen for GEMMs, in a small file that all processes of a user share.

#include <cublasLt.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace llama3d::cuda {

class MatmulChoices {
 public:
  /// `file` empty: nothing is kept. It is a cache: where it can't be read or written, or holds nonsense, the
  /// next run measures again.
  explicit MatmulChoices(std::filesystem::path file);

  std::optional<cublasLtMatmulAlgo_t> find(const std::string& gemm) const;

  /// Keeps `algorithm` for a GEMM of which `find` knew nothing good. Returns the choice that holds from
  /// here on: another process's where one was first, so that the ranks of a job and all later runs compute
  /// the same bits.
  cublasLtMatmulAlgo_t settle(const std::string& gemm, const cublasLtMatmulAlgo_t& algorithm);

 private:
  std::filesystem::path file_;
  std::map<std::string, cublasLtMatmulAlgo_t> choices_;  ///< by MatmulKey::to_string
};

}  // namespace llama3d::cuda
