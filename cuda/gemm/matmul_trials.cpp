#include "cuda/gemm/matmul_trials.hpp"

#include <algorithm>
#include <cmath>

#include "base/unique_handle.hpp"
#include "cuda/device/check.hpp"

namespace llama3d::cuda {
namespace {

// Large GEMMs are power-bound: they hold a GPU at its power limit, where the clock follows the power that an
// algorithm draws: the fastest in a few calls is often not the fastest in training. The clock takes tens of
// milliseconds to settle, so a short round only screens the candidates.
constexpr float screening_milliseconds = 20;
constexpr float screening_margin = 1.08f;
constexpr float lead_milliseconds = 50;
constexpr float timed_milliseconds = 100;
constexpr int timed_rounds = 2;
/// GEMMs shorter than this are not power-bound, nor are memory-bound ones: a few more calls decide.
constexpr float short_milliseconds = 0.02f;
constexpr int most_short_calls = 50;
constexpr float quick_milliseconds = 2;

struct EventTraits {
  using Handle = cudaEvent_t;
  static constexpr Handle invalid = nullptr;
  static void release(Handle handle) { cudaEventDestroy(handle); }
};

UniqueHandle<EventTraits> make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "creating an event");
  return UniqueHandle<EventTraits>(event);
}

struct Trial {
  cublasLtMatmulAlgo_t algorithm;
  float milliseconds = 0;  ///< of a call, or of all timed calls so far
};

bool quicker(const Trial& x, const Trial& y) {
  return x.milliseconds < y.milliseconds;
}

class Rounds {
 public:
  Rounds(const MatmulCall& call, cudaStream_t stream, const std::string& gemm)
      : call_(call), stream_(stream), gemm_(gemm), begin_(make_event()), end_(make_event()) {}

  /// Milliseconds of `calls` calls without a pause, after `lead` calls that are not timed.
  float time(const cublasLtMatmulAlgo_t& algorithm, int calls, int lead = 0) const {
    queue(algorithm, lead);
    check(cudaEventRecord(begin_.get(), stream_), "recording an event");
    queue(algorithm, calls);
    check(cudaEventRecord(end_.get(), stream_), "recording an event");
    check(cudaEventSynchronize(end_.get()), "timing GEMM " + gemm_);
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()), "reading an event");
    return milliseconds;
  }

 private:
  void queue(const cublasLtMatmulAlgo_t& algorithm, int calls) const {
    for (int i = 0; i < calls; ++i) check(call_(algorithm), "GEMM " + gemm_);
  }

  const MatmulCall& call_;
  cudaStream_t stream_;
  const std::string& gemm_;
  UniqueHandle<EventTraits> begin_, end_;
};

int calls_in(float milliseconds, float once) {
  return std::max(3, static_cast<int>(std::lround(milliseconds / once)));
}

}  // namespace

cublasLtMatmulAlgo_t fastest_algorithm(const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                       const MatmulCall& call, bool settle, cudaStream_t stream,
                                       const std::string& gemm) {
  if (algorithms.size() == 1) return algorithms.front();
  const Rounds rounds(call, stream, gemm);
  std::vector<Trial> trials;
  for (const auto& algorithm : algorithms)
    if (call(algorithm) == CUBLAS_STATUS_SUCCESS) trials.push_back({algorithm, rounds.time(algorithm, 1)});
  LLAMA3D_EXPECT(!trials.empty(), "no algorithm runs GEMM {}", gemm);

  const float once = std::min_element(trials.begin(), trials.end(), quicker)->milliseconds;
  const bool quick = !settle || once < short_milliseconds;
  const int screening = quick ? std::min(most_short_calls, calls_in(quick_milliseconds, once))
                              : calls_in(screening_milliseconds, once);
  rounds.time(trials.front().algorithm, screening);
  for (Trial& trial : trials) trial.milliseconds = rounds.time(trial.algorithm, screening);
  std::sort(trials.begin(), trials.end(), quicker);
  const float limit = screening_margin * trials.front().milliseconds;
  std::erase_if(trials, [limit](const Trial& trial) { return trial.milliseconds > limit; });
  if (trials.size() == 1) return trials.front().algorithm;

  for (Trial& trial : trials) trial.milliseconds = 0;
  const int lead = quick ? 0 : calls_in(lead_milliseconds, once);
  const int timed = quick ? screening : calls_in(timed_milliseconds, once);
  for (int round = 0; round < timed_rounds; ++round)
    for (Trial& trial : trials) trial.milliseconds += rounds.time(trial.algorithm, timed, lead);
  return std::min_element(trials.begin(), trials.end(), quicker)->algorithm;
}

}  // namespace llama3d::cuda
