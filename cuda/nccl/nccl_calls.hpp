#pragma once
// NCCL's handles with owners, and its statuses as exceptions.

#include <nccl.h>

#include <source_location>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/unique_handle.hpp"

namespace llama3d::cuda {

/// Throws unless the call succeeded: RankLostError where another rank or the network may be at fault, Error
/// otherwise, with NCCL's own words. `operation` is what was being done.
void check_nccl(ncclResult_t status, std::string_view operation,
                std::source_location where = std::source_location::current());

/// NCCL's words for a status, with its last message.
std::string words_of(ncclResult_t status, ncclComm_t comm = nullptr);

/// The library this process runs with, "2.28.9", and whether it is at least major.minor.
std::string nccl_version();
bool nccl_at_least(int major, int minor);

struct NcclCommTraits {
  using Handle = ncclComm_t;
  static constexpr Handle invalid = nullptr;
  /// A rank that unwinds alone leaves its communicators to the end of the process: taking them down waits for
  /// ranks that will not come.
  static void release(Handle comm) noexcept;
};
using NcclCommHandle = UniqueHandle<NcclCommTraits>;

/// Takes communicators down side by side: each waits for a thread of NCCL that looks up every half second.
class NcclTakedown {
 public:
  NcclTakedown() = default;
  NcclTakedown(const NcclTakedown&) = delete;
  NcclTakedown& operator=(const NcclTakedown&) = delete;
  /// Waits for those given to it.
  ~NcclTakedown();
  /// Takes over a communicator on the GPU of this ordinal. Not from two threads at once.
  void add(NcclCommHandle comm, int ordinal);

 private:
  std::vector<std::thread> threads_;
};

}  // namespace llama3d::cuda
