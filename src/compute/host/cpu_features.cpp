#include "compute/host/cpu_features.hpp"

#include <string>

#include "base/error.hpp"

namespace llama3d::host {

bool cpu_supports(std::string_view feature) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (feature == "avx") return __builtin_cpu_supports("avx");
  if (feature == "avx2") return __builtin_cpu_supports("avx2");
  if (feature == "fma") return __builtin_cpu_supports("fma");
  if (feature == "avx512f") return __builtin_cpu_supports("avx512f");
  if (feature == "avx512bw") return __builtin_cpu_supports("avx512bw");
  if (feature == "avx512dq") return __builtin_cpu_supports("avx512dq");
  if (feature == "avx512vl") return __builtin_cpu_supports("avx512vl");
  if (feature == "avx512vbmi") return __builtin_cpu_supports("avx512vbmi");
  if (feature == "avx512bf16") return __builtin_cpu_supports("avx512bf16");
#endif
  static_cast<void>(feature);
  return false;
}

void require_features(std::span<const std::string_view> features) {
  std::string missing;
  for (const auto feature : features) {
    if (!cpu_supports(feature)) missing += std::string(missing.empty() ? "" : ", ") + std::string(feature);
  }
  if (missing.empty()) return;
  throw ConfigurationError(fmt::format(
      "this CPU cannot run the CPU kernels (they were compiled for {}, which it lacks); rebuild on "
      "this machine, or with -DLLAMA3D_HOST_ARCH=x86-64-v3 or older",
      missing));
}

}  // namespace llama3d::host
