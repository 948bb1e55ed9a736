// A pseudo-random permutation without a table: a Feistel network permutes [0, 4^half_bits), the smallest such
// domain that holds [0, size), and an index that lands outside is sent through again until it lands inside.
// Sources: Luby and Rackoff, "How to construct pseudorandom permutations", 1988 (the network); Black and
// Rogaway, "Ciphers with arbitrary finite domains", 2002 (cycle walking).
#include "base/error.hpp"
#include "base/philox.hpp"
#include "data/dataset.hpp"

namespace llama3d {

namespace {
constexpr std::uint64_t feistel_rounds = 6;
}

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch)
    : size_(size), half_bits_(0) {
  LLAMA3D_EXPECT(size > 0 && size <= std::int64_t{1} << 62, "permutation of {} things", size);
  const PhiloxBlock key = philox4x32(philox_key(seed, "data.shuffle"), epoch);
  key_ = std::uint64_t{key[1]} << 32 | key[0];
  while ((std::int64_t{1} << 2 * half_bits_) < size) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  LLAMA3D_EXPECT(index >= 0 && index < size_, "index {} of a permutation of {} things", index, size_);
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<std::uint64_t>(index);
  do {  // fewer than four times on average: the domain is less than four times the size
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < feistel_rounds; ++round) {
      const std::uint64_t mixed = left ^ (philox4x32(key_, right, round)[0] & mask);
      left = right;
      right = mixed;
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

}  // namespace llama3d
