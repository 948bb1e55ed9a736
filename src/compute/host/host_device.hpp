#pragma once
// The CPU as a Device: memory of this process, streams that execute at once, and HostKernels.

#include <memory>

#include "compute/device.hpp"

namespace llama3d {

/// The CPU with `threads` threads for this rank, 1 to 256; the calling thread is one of them.
/// Throws ConfigurationError when the count is out of range, or when the CPU lacks an instruction set that
/// the kernels were compiled for. GEMMs run on OpenBLAS, whose own threading is switched off for
/// the whole process: these threads share the work instead.
std::unique_ptr<Device> make_host_device(int threads);

}  // namespace llama3d
