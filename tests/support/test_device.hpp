#pragma once
// The device that a test runs on.

#include <memory>

#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/process_grid.hpp"
#include "compute/device.hpp"

namespace llama3d::test {

/// LLAMA3D_TEST_DEVICE=cuda: tests that take any device run on the GPU, and fail where there is none.
bool gpu_required();
/// Whether this build and this machine have a GPU.
bool gpu_available();
/// Whether this many ranks of a node have to share GPUs.
bool gpus_shared(int node_size);
/// LLAMA3D_TEST_REGISTER=1: memory of ranks with GPUs of their own is registered with NCCL, as by
/// `--register-buffers`.
bool memory_registered(int node_size);
/// The GPU of a rank; shared where its node has more ranks. Throws where there is none, or the build has no
/// CUDA.
std::unique_ptr<Device> make_gpu(int node_rank = 0, int node_size = 1);
/// The same GPU with the attention of older ones.
std::unique_ptr<Device> make_gpu_of_old();
/// The GPU when it is required, otherwise the host on one thread.
std::unique_ptr<Device> make_test_device(int node_rank = 0, int node_size = 1);
/// The communicators of GPUs, which ranks may share. Throws where the build has none.
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid& grid, ControlPlane& control,
                                                Device& device);

}  // namespace llama3d::test
