#pragma once

#include <cstddef>
#include <string>

namespace llama3d::cuda {

/// Memory on the current GPU that NCCL can map into the address spaces of this host's other ranks (in a build
/// without NCCL: any memory); null, and why in `failure`, where there is none to be had.
void* allocate_peer_memory(std::size_t bytes, std::string& failure);
void free_peer_memory(void* memory) noexcept;

}  // namespace llama3d::cuda
