#pragma once

#include <cstddef>

namespace llama3d::cuda {

/// Memory on the current GPU that NCCL can map into the address spaces of this host's other ranks; null where
/// there is not enough. Throws ContractViolation in a build without NCCL.
void* allocate_peer_memory(std::size_t bytes);
void free_peer_memory(void* memory) noexcept;

}  // namespace llama3d::cuda
