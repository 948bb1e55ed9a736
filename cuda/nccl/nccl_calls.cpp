#include "cuda/nccl/nccl_calls.hpp"

#include <cuda_runtime_api.h>

#include <exception>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "cuda/device/peer_memory.hpp"

namespace llama3d::cuda {
namespace {

int library_version() {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

/// Peers and networks, rather than this program, may be why.
bool lost(ncclResult_t status) {
  return status == ncclRemoteError || status == ncclSystemError || status == ncclInternalError;
}

}  // namespace

std::string words_of(ncclResult_t status, ncclComm_t comm) {
  const char* last = ncclGetLastError(comm);
  return last && *last ? fmt::format("{}: {}", ncclGetErrorString(status), last) : ncclGetErrorString(status);
}

void check_nccl(ncclResult_t status, std::string_view operation, std::source_location where) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  std::string message = fmt::format("{} failed ({}; NCCL {}, {}:{}); NCCL_DEBUG=INFO says more", operation,
                                    words_of(status), nccl_version(), where.file_name(), where.line());
  for (char& c : message)
    if (c == '\n') c = ' ';
  if (lost(status)) throw RankLostError(message);
  throw Error(ExitStatus::failure, message);
}

std::string nccl_version() {
  const int version = library_version();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

bool nccl_at_least(int major, int minor) {
  return library_version() >= NCCL_VERSION(major, minor, 0);
}

void* allocate_peer_memory(std::size_t bytes, std::string& failure) {
  void* memory = nullptr;
  const ncclResult_t status = ncclMemAlloc(&memory, bytes);
  if (status == ncclSuccess) return memory;
  failure = words_of(status);
  return nullptr;
}

void free_peer_memory(void* memory) noexcept {
  cudaDeviceSynchronize();  // as cudaFree does
  ncclMemFree(memory);
}

void NcclCommTraits::release(Handle comm) noexcept {
  if (std::uncaught_exceptions() == 0) ncclCommDestroy(comm);
}

NcclTakedown::~NcclTakedown() {
  for (std::thread& thread : threads_) thread.join();
}

void NcclTakedown::add(NcclCommHandle comm, int ordinal) {
  try {
    threads_.emplace_back([comm = std::move(comm), ordinal]() mutable {
      cudaSetDevice(ordinal);  // NCCL would start up the first GPU
      comm.reset();
    });
  } catch (const std::system_error&) {
    // No thread to spare: it was taken down here.
  }
}

}  // namespace llama3d::cuda
