#pragma once

#include <utility>

namespace llama3d {

/// Sole owner of a raw handle (an HDF5 id, a file descriptor, an MPI communicator). `Traits` names the
/// handle type, its invalid value and how to release it; release must not throw:
///
///     struct Traits { using Handle = int; static constexpr Handle invalid = -1; static void release(Handle);
///     };
template <class Traits>
class UniqueHandle {
 public:
  using Handle = typename Traits::Handle;

  UniqueHandle() = default;
  explicit UniqueHandle(Handle handle) : handle_(handle) {}
  UniqueHandle(UniqueHandle&& other) noexcept : handle_(other.detach()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) reset(other.detach());
    return *this;
  }
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;
  ~UniqueHandle() { reset(); }

  Handle get() const noexcept { return handle_; }
  explicit operator bool() const noexcept { return handle_ != Traits::invalid; }
  /// Gives the handle away unreleased.
  Handle detach() noexcept { return std::exchange(handle_, Traits::invalid); }
  void reset(Handle handle = Traits::invalid) noexcept {
    if (handle_ != Traits::invalid) Traits::release(handle_);
    handle_ = handle;
  }

 private:
  Handle handle_ = Traits::invalid;
};

}  // namespace llama3d
