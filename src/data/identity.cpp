#include "data/identity.hpp"

#include <algorithm>
#include <vector>

#include "base/sha256.hpp"

namespace llama3d {
namespace {

constexpr std::int64_t stretches = 64, stretch = 256;

template <class T>
void append(const std::vector<T>& values, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

std::string identity_of(const TokenFileReader& file) {
  std::string bytes;
  append(file.documents(), bytes);
  append(std::vector{file.tokens(), std::int64_t{file.info().has_loss_mask}}, bytes);
  const std::int64_t last = std::max<std::int64_t>(file.tokens() - stretch, 0);
  for (std::int64_t i = 0; i < stretches; ++i) {
    const std::int64_t begin = last * i / (stretches - 1);
    const auto count = static_cast<std::size_t>(std::min(stretch, file.tokens() - begin));
    std::vector<std::uint32_t> tokens(count);
    std::vector<std::uint8_t> mask(count);
    file.read(begin, tokens);
    file.read_loss_mask(begin, mask);
    append(tokens, bytes);
    append(mask, bytes);
  }
  return sha256(bytes);
}

}  // namespace llama3d
