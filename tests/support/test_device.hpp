#pragma once
// The device that a test runs on.

#include <memory>

#include "compute/device.hpp"

namespace llama3d::test {

/// LLAMA3D_TEST_DEVICE=cuda: tests that take any device run on the GPU, and fail where there is none.
bool gpu_required();
/// Whether this build and this machine have a GPU.
bool gpu_available();
/// The first GPU. Throws where there is none, or the build has no CUDA.
std::unique_ptr<Device> make_gpu();
/// The GPU when it is required, otherwise the host on one thread.
std::unique_ptr<Device> make_test_device();

}  // namespace llama3d::test
