#include "cuda/device/gpu_traits.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace llama3d::cuda {

namespace {

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

std::string reason_against_driver(int driver, int runtime) {
  if (driver == 0) return "no NVIDIA driver is loaded";
  return fmt::format("the driver is for CUDA {}, this llama3d needs one for {}", version_text(driver),
                     version_text(runtime));
}

void require_supported(const GpuTraits& traits) {
  if (traits.architecture < 80)
    throw ConfigurationError(
        fmt::format("`device` cuda: {} has compute capability {}.{}, at least 8.0 "
                    "(Ampere) is needed; use `device` cpu",
                    traits.name, traits.architecture / 10, traits.architecture % 10));
}

}  // namespace llama3d::cuda
