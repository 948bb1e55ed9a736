#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <numeric>
#include <vector>

#include "base/error.hpp"
#include "data/dataset.hpp"

using namespace llama3d;

namespace {

std::vector<std::int64_t> images(const Permutation& permutation, std::int64_t size) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) values[static_cast<std::size_t>(i)] = permutation(i);
  return values;
}

bool is_bijection(std::vector<std::int64_t> values) {
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] != static_cast<std::int64_t>(i)) return false;
  return true;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(permutation)

BOOST_AUTO_TEST_CASE(is_a_bijection_at_any_size) {
  std::vector<std::int64_t> sizes = {1023, 1024, 1025, 4095, 4096, 4097, 10007};
  for (std::int64_t size = 1; size <= 70; ++size) sizes.push_back(size);
  for (const std::int64_t size : sizes)
    for (const std::uint64_t seed : {0u, 1u, 99u})
      BOOST_TEST(is_bijection(images(Permutation(size, seed, seed % 3), size)),
                 "size " << size << " seed " << seed);
  std::vector<std::int64_t> broken = images(Permutation(70, 0, 0), 70);
  broken[3] = broken[4];
  BOOST_TEST(!is_bijection(broken));
}

BOOST_AUTO_TEST_CASE(depends_on_seed_and_epoch_and_nothing_else) {
  constexpr std::int64_t size = 500;
  const auto reference = images(Permutation(size, 3, 1), size);
  BOOST_TEST((images(Permutation(size, 3, 1), size) == reference));
  BOOST_TEST((images(Permutation(size, 4, 1), size) != reference));
  BOOST_TEST((images(Permutation(size, 3, 2), size) != reference));
  BOOST_TEST((images(Permutation(size, 1, 3), size) != reference));
}

BOOST_AUTO_TEST_CASE(looks_random) {
  // A uniformly random permutation has 1 fixed point and 1 pair of neighbours that stay neighbours in order,
  // each Poisson with mean 1; more than 12 has a probability below 1e-10. The rank correlation of index and
  // image has a standard deviation of 1 / sqrt(size - 1): six of them.
  constexpr std::int64_t size = 20000;
  const auto values = images(Permutation(size, 12, 0), size);
  int fixed = 0, neighbours = 0;
  double correlation = 0;
  const double middle = (size - 1) / 2.0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto value = values[static_cast<std::size_t>(i)];
    fixed += value == i;
    if (i > 0) neighbours += value == values[static_cast<std::size_t>(i - 1)] + 1;
    correlation += (static_cast<double>(i) - middle) * (static_cast<double>(value) - middle);
  }
  correlation /= size * (static_cast<double>(size) * size - 1) / 12;
  BOOST_TEST(fixed <= 12);
  BOOST_TEST(neighbours <= 12);
  BOOST_TEST(std::abs(correlation) < 6 / std::sqrt(size - 1.0));
}

BOOST_AUTO_TEST_CASE(small_sizes_reach_every_order) {
  // 3! orders of three samples over 600 epochs: expected 100 each, standard deviation 9.1; five of them. The
  // keys are fixed, so this cannot flicker.
  std::vector<int> seen(27);
  for (std::uint64_t epoch = 0; epoch < 600; ++epoch) {
    const auto v = images(Permutation(3, 5, epoch), 3);
    ++seen[static_cast<std::size_t>(v[0] * 9 + v[1] * 3 + v[2])];
  }
  for (const int code : {5, 7, 11, 15, 19, 21}) {
    BOOST_TEST(seen[static_cast<std::size_t>(code)] > 55);
    BOOST_TEST(seen[static_cast<std::size_t>(code)] < 145);
  }
}

BOOST_AUTO_TEST_CASE(huge_sizes_need_no_memory) {
  constexpr std::int64_t size = (std::int64_t{1} << 40) + 12345;
  const Permutation permutation(size, 1, 0);
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < 1000; ++i) values.push_back(permutation(size - 1 - i));
  for (const std::int64_t value : values) BOOST_TEST((value >= 0 && value < size));
  std::sort(values.begin(), values.end());
  BOOST_TEST((std::adjacent_find(values.begin(), values.end()) == values.end()));
  BOOST_CHECK_THROW(permutation(size), ContractViolation);
  BOOST_CHECK_THROW(permutation(-1), ContractViolation);
  BOOST_CHECK_THROW(Permutation(0, 0, 0), ContractViolation);
}

BOOST_AUTO_TEST_SUITE_END()
