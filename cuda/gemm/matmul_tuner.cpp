#include "cuda/gemm/matmul_tuner.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "base/unique_handle.hpp"
#include "cuda/device/check.hpp"
#include "cuda/gemm/matmul_trials.hpp"

namespace llama3d::cuda {
namespace {

constexpr int most_candidates = 16;

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::fp32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::fp64:
    case DType::int32: break;
  }
  throw ContractViolation(fmt::format("no GEMM takes {}", name_of(dtype)));
}

struct DescriptorTraits {
  using Handle = cublasLtMatmulDesc_t;
  static constexpr Handle invalid = nullptr;
  static void release(Handle handle) { cublasLtMatmulDescDestroy(handle); }
};
struct LayoutTraits {
  using Handle = cublasLtMatrixLayout_t;
  static constexpr Handle invalid = nullptr;
  static void release(Handle handle) { cublasLtMatrixLayoutDestroy(handle); }
};
struct PreferenceTraits {
  using Handle = cublasLtMatmulPreference_t;
  static constexpr Handle invalid = nullptr;
  static void release(Handle handle) { cublasLtMatmulPreferenceDestroy(handle); }
};

UniqueHandle<LayoutTraits> make_layout(DType dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, cuda_type(dtype), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), rows),
        fmt::format("describing a matrix of {} x {}", rows, columns));
  return UniqueHandle<LayoutTraits>(layout);
}

template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
        "setting a preference for GEMMs");
}

void set_transpose(cublasLtMatmulDesc_t descriptor, cublasLtMatmulDescAttributes_t attribute,
                   bool transpose) {
  const cublasOperation_t operation = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(cublasLtMatmulDescSetAttribute(descriptor, attribute, &operation, sizeof(operation)),
        "describing a GEMM");
}

/// Whether arithmetic rather than memory limits the GEMM, so that it draws all the power there is.
bool compute_bound(const MatmulKey& key) {
  constexpr double most_of_memory = 100;  // operations a byte; the balance of an A100 is 160, of an H100 300
  const auto m = static_cast<double>(key.m), n = static_cast<double>(key.n), k = static_cast<double>(key.k);
  const auto in = static_cast<double>(size_of(key.in)), out = static_cast<double>(size_of(key.out));
  return 2 * m * n * k > most_of_memory * (in * (m + n) * k + out * m * n);
}

std::string file_name(const GpuTraits& gpu) {
  std::string name = gpu.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '-');
  return fmt::format("matmul_{}_cublaslt{}.txt", name, cublasLtGetVersion());
}

}  // namespace

std::string MatmulKey::to_string() const {
  return fmt::format("{} {} {} {}{} {} {} {} {} {} {}", m, n, k, transpose_a ? 'T' : 'N',
                     transpose_b ? 'T' : 'N', name_of(in), name_of(out), accumulate ? 1 : 0, alignment_a,
                     alignment_b, alignment_d);
}

struct MatmulTuner::Plan {
  explicit Plan(const MatmulKey& key)
      : a(make_layout(key.in, key.rows_a(), key.transpose_a ? key.m : key.k)),
        b(make_layout(key.in, key.rows_b(), key.transpose_b ? key.k : key.n)),
        d(make_layout(key.out, key.m, key.n)) {
    cublasLtMatmulDesc_t made = nullptr;
    check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a GEMM");
    descriptor.reset(made);
    set_transpose(made, CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_a);
    set_transpose(made, CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_b);
  }

  UniqueHandle<DescriptorTraits> descriptor;
  UniqueHandle<LayoutTraits> a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
};

MatmulTuner::MatmulTuner(const GpuTraits& gpu, const std::filesystem::path& cache)
    : shared_gpu_(gpu.shared), choices_(cache.empty() || gpu.shared ? "" : cache / file_name(gpu)) {
  check(cublasLtCreate(&handle_), "starting cuBLASLt");
}

MatmulTuner::~MatmulTuner() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

std::filesystem::path MatmulTuner::default_cache() {
  if (const char* own = std::getenv("LLAMA3D_CACHE_DIR")) return own;
  if (const char* user = std::getenv("XDG_CACHE_HOME")) return std::filesystem::path(user) / "llama3d";
  if (const char* home = std::getenv("HOME")) return std::filesystem::path(home) / ".cache" / "llama3d";
  return {};
}

void MatmulTuner::run(const MatmulKey& key, const MatmulOperands& operands, void* workspace,
                      cudaStream_t stream) {
  const Plan& plan = plan_for(key, operands, workspace, stream);
  const auto status = run(plan, plan.algorithm, 1.0f, key, operands, workspace, stream);
  // Put in words only when needed: small models make tens of thousands of GEMMs a second.
  if (status != CUBLAS_STATUS_SUCCESS) check(status, "GEMM " + key.to_string());
}

MatmulTuner::Plan& MatmulTuner::plan_for(const MatmulKey& key, const MatmulOperands& operands,
                                         void* workspace, cudaStream_t stream) {
  auto& plan = plans_[key];
  if (plan) return *plan;
  auto made = std::make_unique<Plan>(key);
  const auto known = choices_.find(key.to_string());
  if (known && runs(*made, *known))
    made->algorithm = *known;
  else if (worth_measuring(key))
    made->algorithm = measured_choice(*made, key, operands, workspace, stream);
  else
    made->algorithm = candidates(*made, key).front();
  plan = std::move(made);
  return *plan;
}

bool MatmulTuner::worth_measuring(const MatmulKey& key) const {
  return !shared_gpu_ && (use_ == KernelUse::training || !compute_bound(key));
}

bool MatmulTuner::runs(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  return cublasLtMatmulAlgoCheck(handle_, plan.descriptor.get(), plan.a.get(), plan.b.get(), plan.d.get(),
                                 plan.d.get(), &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= workspace_bytes;
}

std::vector<cublasLtMatmulAlgo_t> MatmulTuner::candidates(const Plan& plan, const MatmulKey& key) const {
  cublasLtMatmulPreference_t made = nullptr;
  check(cublasLtMatmulPreferenceCreate(&made), "creating a preference for GEMMs");
  const UniqueHandle<PreferenceTraits> preference(made);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment_a);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment_b);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment_d);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment_d);
  // Split sums in fp32 and in order only: the same call gives the same bits, and bf16 rounds once.
  set(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  std::vector<cublasLtMatmulHeuristicResult_t> found(most_candidates);
  int count = 0;
  check(
      cublasLtMatmulAlgoGetHeuristic(handle_, plan.descriptor.get(), plan.a.get(), plan.b.get(), plan.d.get(),
                                     plan.d.get(), made, most_candidates, found.data(), &count),
      "choosing an algorithm for GEMM " + key.to_string());
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i)
    if (found[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back(found[static_cast<std::size_t>(i)].algo);
  LLAMA3D_EXPECT(!algorithms.empty(), "cuBLASLt knows no algorithm for GEMM {}", key.to_string());
  return algorithms;
}

cublasLtMatmulAlgo_t MatmulTuner::measured_choice(const Plan& plan, const MatmulKey& key,
                                                  const MatmulOperands& operands, void* workspace,
                                                  cudaStream_t stream) {
  // Sums that a call adds to must survive the trials: the smallest positive factor leaves any normal number
  // as it is and a zero below 1e-36, while the GPU does all of the work on the real operands.
  const float alpha = key.accumulate ? std::numeric_limits<float>::denorm_min() : 1.0f;
  const std::string gemm = key.to_string();
  const auto fastest = fastest_algorithm(
      candidates(plan, key),
      [&](const cublasLtMatmulAlgo_t& algorithm) {
        return run(plan, algorithm, alpha, key, operands, workspace, stream);
      },
      use_ == KernelUse::training, stream, gemm);
  const auto settled = choices_.settle(gemm, fastest);
  return runs(plan, settled) ? settled : fastest;
}

cublasStatus_t MatmulTuner::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float alpha,
                                const MatmulKey& key, const MatmulOperands& operands, void* workspace,
                                cudaStream_t stream) const {
  const float beta = key.accumulate ? 1.0f : 0.0f;
  return cublasLtMatmul(handle_, plan.descriptor.get(), &alpha, operands.a, plan.a.get(), operands.b,
                        plan.b.get(), &beta, operands.d, plan.d.get(), operands.d, plan.d.get(), &algorithm,
                        workspace, workspace ? workspace_bytes : 0, stream);
}

}  // namespace llama3d::cuda
