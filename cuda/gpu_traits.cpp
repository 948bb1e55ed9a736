#include "cuda/gpu_traits.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace llama3d::cuda {

void require_supported(const GpuTraits& traits) {
  if (traits.architecture < 80)
    throw ConfigurationError(
        fmt::format("--device cuda: {} has compute capability {}.{}, at least 8.0 "
                    "(Ampere) is needed; use --device cpu",
                    traits.name, traits.architecture / 10, traits.architecture % 10));
}

}  // namespace llama3d::cuda
