#pragma once
// cuBLASLt with algorithms chosen by measurement: the heuristic's candidates are timed once for each shape
// and layout, on the operands of the first call, and the choice is kept in a file.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <filesystem>
#include <map>
#include <memory>
#include <vector>

#include "compute/kernels.hpp"
#include "cuda/device/gpu_traits.hpp"
#include "cuda/gemm/matmul_choices.hpp"

namespace llama3d::cuda {

/// One kind of GEMM: D (m, n) = op(A) op(B) + beta D, all column-major as cuBLAS has it.
struct MatmulKey {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  DType in = DType::bf16, out = DType::bf16;
  bool accumulate = false;  ///< beta is 1
  /// Smallest power of two, up to 256, that divides the operands' addresses.
  std::uint32_t alignment_a = 256, alignment_b = 256, alignment_d = 256;

  std::int64_t rows_a() const { return transpose_a ? k : m; }
  std::int64_t rows_b() const { return transpose_b ? n : k; }
  auto operator<=>(const MatmulKey&) const = default;
  /// One line of the cache file: "4096 8192 4096 TN bf16 bf16 0 256 256 256".
  std::string to_string() const;
};

/// Leading dimensions are the rows of the stored matrices.
struct MatmulOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* d = nullptr;
};

class MatmulTuner {
 public:
  /// Space for split-K sums and the like; cuBLAS asks for at least 32 MiB on Hopper.
  static constexpr std::size_t workspace_bytes = std::size_t{64} << 20;

  /// Reads the file of choices for this GPU and this cuBLASLt. `cache` empty: nothing is kept. On a shared
  /// GPU, where others' work would be timed too, cuBLASLt's own first choice is taken and nothing kept.
  MatmulTuner(const GpuTraits& gpu, const std::filesystem::path& cache);
  ~MatmulTuner();
  MatmulTuner(const MatmulTuner&) = delete;
  MatmulTuner& operator=(const MatmulTuner&) = delete;

  /// For inference only what takes tens of milliseconds is timed, and choices that are known are used.
  void set_use(KernelUse use) { use_ = use; }

  /// Queues the GEMM. The first call of a kind waits for the stream and times candidates on the operands.
  void run(const MatmulKey& key, const MatmulOperands& operands, void* workspace, cudaStream_t stream);

  /// `$LLAMA3D_CACHE_DIR`, `$XDG_CACHE_HOME/llama3d` or `~/.cache/llama3d`; empty when none is known.
  static std::filesystem::path default_cache();

 private:
  struct Plan;

  Plan& plan_for(const MatmulKey& key, const MatmulOperands& operands, void* workspace, cudaStream_t stream);
  /// Whether an algorithm, read from a file, suits the GEMM.
  bool runs(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const;
  std::vector<cublasLtMatmulAlgo_t> candidates(const Plan& plan, const MatmulKey& key) const;
  bool worth_measuring(const MatmulKey& key) const;
  /// The fastest of the candidates, or what another process chose meanwhile.
  cublasLtMatmulAlgo_t measured_choice(const Plan& plan, const MatmulKey& key, const MatmulOperands& operands,
                                       void* workspace, cudaStream_t stream);
  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float alpha,
                     const MatmulKey& key, const MatmulOperands& operands, void* workspace,
                     cudaStream_t stream) const;

  cublasLtHandle_t handle_ = nullptr;
  bool shared_gpu_;
  KernelUse use_ = KernelUse::training;
  MatmulChoices choices_;
  std::map<MatmulKey, std::unique_ptr<Plan>> plans_;
};

}  // namespace llama3d::cuda
