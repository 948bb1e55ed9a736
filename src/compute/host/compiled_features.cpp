#include "compute/host/cpu_features.hpp"

namespace llama3d::host {
namespace {

constexpr std::string_view features[] = {
    "",  // An array may not be empty; left out of the span below.
#ifdef __AVX__
    "avx",
#endif
#ifdef __AVX2__
    "avx2",
#endif
#ifdef __FMA__
    "fma",
#endif
#ifdef __AVX512F__
    "avx512f",
#endif
#ifdef __AVX512BW__
    "avx512bw",
#endif
#ifdef __AVX512DQ__
    "avx512dq",
#endif
#ifdef __AVX512VL__
    "avx512vl",
#endif
#ifdef __AVX512VBMI__
    "avx512vbmi",
#endif
#ifdef __AVX512BF16__
    "avx512bf16",
#endif
};

}  // namespace

constinit const std::span<const std::string_view> compiled_features = std::span(features).subspan(1);

}  // namespace llama3d::host
