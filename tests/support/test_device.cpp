#include "support/test_device.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "compute/host/host_device.hpp"
#if LLAMA3D_CUDA
#include "cuda/device/cuda_device.hpp"
#include "cuda/nccl/nccl_communicators.hpp"
#endif

namespace llama3d::test {

bool gpu_required() {
  const char* asked = std::getenv("LLAMA3D_TEST_DEVICE");
  return asked && std::string(asked) == "cuda";
}

bool memory_registered(int node_size) {
  const char* asked = std::getenv("LLAMA3D_TEST_REGISTER");
  return gpu_required() && asked && std::string(asked) == "1" && node_size > 1 && !gpus_shared(node_size);
}

#if LLAMA3D_CUDA
bool gpu_available() {
  return cuda_device_count() > 0;
}
bool gpus_shared(int node_size) {
  return gpu_required() && node_size > cuda_device_count();
}
GpuUse use_of_gpu(int node_size) {
  if (gpus_shared(node_size)) return GpuUse::shared;
  return memory_registered(node_size) ? GpuUse::beside_peers : GpuUse::alone;
}
std::unique_ptr<Device> make_gpu(int node_rank, int node_size) {
  return make_cuda_device(node_rank, use_of_gpu(node_size));
}
std::unique_ptr<Device> make_gpu_of_old() {
  return make_cuda_device(0, GpuUse::alone, 80);
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid& grid, ControlPlane& control,
                                                Device& device) {
  return make_nccl_communicators(grid, control, device, use_of_gpu(control.node_size()));
}
#else
bool gpu_available() {
  return false;
}
bool gpus_shared(int) {
  return false;
}
std::unique_ptr<Device> make_gpu(int, int) {
  throw std::logic_error("a test asks for a GPU, and this build has no CUDA");
}
std::unique_ptr<Device> make_gpu_of_old() {
  return make_gpu(0, 1);
}
std::unique_ptr<GridCommunicators> connect_gpus(const ProcessGrid&, ControlPlane&, Device&) {
  throw std::logic_error("a test asks for GPUs, and this build has no CUDA");
}
#endif

std::unique_ptr<Device> make_test_device(int node_rank, int node_size) {
  return gpu_required() ? make_gpu(node_rank, node_size) : make_host_device(1);
}

}  // namespace llama3d::test
