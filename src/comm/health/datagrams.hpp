#pragma once
// Short texts between ranks, beside MPI: they pass while MPI stands still, from any one thread, and may get
// lost.

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/unique_handle.hpp"
#include "comm/control_plane.hpp"

namespace llama3d {

struct DescriptorTraits {
  using Handle = int;
  static constexpr Handle invalid = -1;
  static void release(Handle descriptor) noexcept;
};
using Descriptor = UniqueHandle<DescriptorTraits>;

class Datagrams {
 public:
  /// Collective. `hosts` are those of all ranks. Where a rank gets no socket, nothing reaches it and nothing
  /// leaves it.
  Datagrams(ControlPlane& control, std::span<const std::string> hosts);

  struct Received {
    int rank = 0;
    std::string text;
    sockaddr_in from{};
  };
  /// To every address that may lead to the rank: it may get the text several times.
  void send(int rank, const std::string& text);
  /// To where the other text came from.
  void answer(const Received& to, const std::string& text);
  /// The next text that has come from this job, if there is one; others are dropped.
  std::optional<Received> receive();

  /// Readable when something has come.
  int descriptor() const { return socket_.get(); }
  std::uint16_t port() const;

 private:
  void send_to(const sockaddr_in& address, const std::string& text);

  int rank_;
  Descriptor socket_;
  std::array<std::uint32_t, 4> token_{};             ///< of the job
  std::vector<std::vector<sockaddr_in>> addresses_;  ///< by rank
};

}  // namespace llama3d
