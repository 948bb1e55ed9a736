#include "comm/control_plane.hpp"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "base/error.hpp"

namespace llama3d {
namespace {

class LocalControlPlane final : public ControlPlane {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int node_rank() const override { return 0; }
  int node_size() const override { return 1; }
  std::string host() const override {
    std::array<char, 256> name{};
    return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
  }
  std::string broadcast(const std::string& text, int root) override {
    LLAMA3D_EXPECT(root == 0, "root {} of 1 rank", root);
    return text;
  }
  std::vector<std::string> all_gather(const std::string& text) override { return {text}; }
  std::int64_t all_max(std::int64_t value) override { return value; }
  void barrier() override {}
  [[noreturn]] void abort(int status) override {
    std::fflush(nullptr);
    std::_Exit(status);
  }
};

}  // namespace

std::unique_ptr<ControlPlane> make_local_control_plane() {
  return std::make_unique<LocalControlPlane>();
}

}  // namespace llama3d
