#include "comm/health/datagrams.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <random>
#include <sstream>

namespace llama3d {
namespace {

/// Of a text with its head; less than any network's frame.
constexpr std::size_t most_bytes = 1400;

/// Goes before each text.
struct Head {
  std::array<std::uint32_t, 4> token;
  std::int32_t rank;
};

const sockaddr* generic(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

/// A socket with a port of its own, or none.
Descriptor open_socket() {
  Descriptor descriptor(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  if (!descriptor || ::bind(descriptor.get(), generic(any), sizeof any) != 0) return {};
  // Answers of a large job come at once.
  const int bytes = 4 << 20;
  ::setsockopt(descriptor.get(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  return descriptor;
}

/// IPv4 addresses under which other hosts may reach this one.
std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, ::freeifaddrs);
  for (const ifaddrs* one = list; one; one = one->ifa_next) {
    if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET) continue;
    if (!(one->ifa_flags & IFF_UP) || (one->ifa_flags & IFF_LOOPBACK)) continue;
    char text[INET_ADDRSTRLEN] = {};
    const auto* address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
    if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text)) addresses.emplace_back(text);
  }
  return addresses;
}

/// Random on rank 0.
std::array<std::uint32_t, 4> common_token(ControlPlane& control) {
  std::array<std::uint32_t, 4> token{};
  std::random_device random;
  for (auto& word : token) word = random();
  const std::string text =
      control.broadcast(std::string(reinterpret_cast<const char*>(token.data()), sizeof token), 0);
  std::memcpy(token.data(), text.data(), sizeof token);
  return token;
}

}  // namespace

void DescriptorTraits::release(Handle descriptor) noexcept {
  ::close(descriptor);
}

Datagrams::Datagrams(ControlPlane& control, std::span<const std::string> hosts)
    : rank_(control.rank()), socket_(open_socket()), token_(common_token(control)) {
  const auto texts = control.all_gather(fmt::format("{} {}", port(), fmt::join(own_addresses(), " ")));
  const std::string& own_host = hosts[static_cast<std::size_t>(rank_)];
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    std::istringstream words(texts[rank]);
    std::uint16_t its_port = 0;
    words >> its_port;
    std::vector<sockaddr_in>& known = addresses_.emplace_back();
    const auto add = [&](const std::string& text) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(its_port);
      if (::inet_pton(AF_INET, text.c_str(), &address.sin_addr) == 1) known.push_back(address);
    };
    if (its_port == 0) continue;
    // Containers of one name share no loopback: the other addresses count there too.
    if (hosts[rank] == own_host) add("127.0.0.1");
    for (std::string text; words >> text;) add(text);
  }
}

std::uint16_t Datagrams::port() const {
  sockaddr_in own{};
  socklen_t length = sizeof own;
  if (!socket_ || ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&own), &length) != 0) return 0;
  return ntohs(own.sin_port);
}

void Datagrams::send_to(const sockaddr_in& address, const std::string& text) {
  const Head head{token_, rank_};
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes.append(text, 0, most_bytes - sizeof head);
  if (socket_) ::sendto(socket_.get(), bytes.data(), bytes.size(), 0, generic(address), sizeof address);
}

void Datagrams::send(int rank, const std::string& text) {
  for (const sockaddr_in& address : addresses_[static_cast<std::size_t>(rank)]) send_to(address, text);
}

void Datagrams::answer(const Received& to, const std::string& text) {
  send_to(to.from, text);
}

std::optional<Datagrams::Received> Datagrams::receive() {
  std::array<char, most_bytes + 1> bytes;
  while (socket_) {
    Received received;
    socklen_t length = sizeof received.from;
    const auto size = ::recvfrom(socket_.get(), bytes.data(), bytes.size(), 0,
                                 reinterpret_cast<sockaddr*>(&received.from), &length);
    if (size < 0) break;
    Head head{};
    if (static_cast<std::size_t>(size) < sizeof head || static_cast<std::size_t>(size) > most_bytes) continue;
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.token != token_ || head.rank < 0 || head.rank >= std::ssize(addresses_)) continue;
    received.rank = head.rank;
    received.text.assign(bytes.data() + sizeof head, static_cast<std::size_t>(size) - sizeof head);
    return received;
  }
  return std::nullopt;
}

}  // namespace llama3d
