#pragma once

#include <memory>

#include "compute/device.hpp"

namespace llama3d {

/// GPUs that this process can see; 0 when there is no driver.
int cuda_device_count();

/// The GPU of this ordinal. Throws ConfigurationError, one line, where there is no such GPU, or the driver or
/// the GPU is too old for this build.
std::unique_ptr<Device> make_cuda_device(int ordinal);

}  // namespace llama3d
