#include <boost/test/unit_test.hpp>
#include <set>
#include <string>

#include "base/error.hpp"
#include "comm/process_grid.hpp"

using namespace llama3d;

namespace {

const std::vector<GridShape>& shapes() {
  static const std::vector<GridShape> all = {{1, 1, 1},  {2, 1, 1},   {1, 2, 1},    {1, 1, 2},   {2, 2, 2},
                                             {3, 2, 1},  {1, 3, 5},   {4, 3, 2},    {8, 4, 4},   {8, 16, 3},
                                             {7, 5, 11}, {8, 16, 32}, {1, 1, 3000}, {16, 2, 100}};
  return all;
}

/// Whether the groups of all ranks, as `group_of` gives them, cut [0, world) into disjoint parts of `size`.
template <class GroupOf>
bool partitions(const GridShape& shape, int size, GroupOf&& group_of) {
  std::set<std::vector<int>> groups;
  for (int rank = 0; rank < shape.world(); ++rank) groups.insert(group_of(ProcessGrid(shape, rank)));
  std::set<int> seen;
  for (const auto& group : groups) {
    if (group.size() != static_cast<std::size_t>(size)) return false;
    seen.insert(group.begin(), group.end());
  }
  return groups.size() * static_cast<std::size_t>(size) == static_cast<std::size_t>(shape.world()) &&
         seen.size() == static_cast<std::size_t>(shape.world()) && *seen.begin() == 0 &&
         *seen.rbegin() == shape.world() - 1;
}

}  // namespace

BOOST_AUTO_TEST_CASE(rank_and_coordinate_are_a_bijection_by_the_stated_formula) {
  for (const GridShape& shape : shapes()) {
    for (int rank = 0; rank < shape.world(); ++rank) {
      const ProcessGrid grid(shape, rank);
      const auto [tp, pp, dp] = grid.coordinate();
      BOOST_REQUIRE(0 <= tp && tp < shape.tp && 0 <= pp && pp < shape.pp && 0 <= dp && dp < shape.dp);
      BOOST_REQUIRE_EQUAL((pp * shape.dp + dp) * shape.tp + tp, rank);
      BOOST_REQUIRE_EQUAL(grid.rank(), rank);
      BOOST_REQUIRE_EQUAL(grid.first_stage(), pp == 0);
      BOOST_REQUIRE_EQUAL(grid.last_stage(), pp == shape.pp - 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(groups_are_disjoint_and_cover_the_world) {
  for (const GridShape& shape : shapes()) {
    BOOST_TEST_CONTEXT(shape.to_string()) {
      BOOST_TEST(partitions(shape, shape.tp, [](const ProcessGrid& grid) { return grid.tp_group(); }));
      BOOST_TEST(partitions(shape, shape.pp, [](const ProcessGrid& grid) { return grid.pp_group(); }));
      BOOST_TEST(partitions(shape, shape.dp, [](const ProcessGrid& grid) { return grid.dp_group(); }));
    }
  }
}

BOOST_AUTO_TEST_CASE(the_partition_check_sees_overlapping_groups) {
  const GridShape shape{2, 2, 2};
  BOOST_TEST(!partitions(shape, 2, [](const ProcessGrid& grid) {
    auto group = grid.tp_group();
    if (grid.rank() == 5) group.front() = 0;
    return group;
  }));
  BOOST_TEST(!partitions(shape, 2, [](const ProcessGrid&) { return std::vector<int>{0, 1}; }));
}

BOOST_AUTO_TEST_CASE(groups_stand_where_their_members_say) {
  for (const GridShape& shape : shapes()) {
    for (int rank = 0; rank < shape.world(); rank += 1 + shape.world() / 100) {
      const ProcessGrid grid(shape, rank);
      const auto at = grid.coordinate();
      BOOST_REQUIRE_EQUAL(grid.tp_group()[static_cast<std::size_t>(at.tp)], rank);
      BOOST_REQUIRE_EQUAL(grid.pp_group()[static_cast<std::size_t>(at.pp)], rank);
      BOOST_REQUIRE_EQUAL(grid.dp_group()[static_cast<std::size_t>(at.dp)], rank);
    }
  }
}

BOOST_AUTO_TEST_CASE(tensor_parallel_neighbours_are_neighbours_in_the_world) {
  const std::vector<int> tp = {4, 5}, pp = {1, 5}, dp = {5, 7};
  BOOST_TEST(ProcessGrid({.tp = 2, .pp = 2, .dp = 2}, 5).tp_group() == tp, boost::test_tools::per_element());
  BOOST_TEST(ProcessGrid({.tp = 2, .pp = 2, .dp = 2}, 5).pp_group() == pp, boost::test_tools::per_element());
  BOOST_TEST(ProcessGrid({.tp = 2, .pp = 2, .dp = 2}, 5).dp_group() == dp, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(data_parallel_size_follows_from_the_world) {
  const ProcessGrid grid = ProcessGrid::derive(24, 4, 3, 17);
  BOOST_TEST((grid.shape() == GridShape{.tp = 4, .pp = 3, .dp = 2}));
  BOOST_TEST(grid.rank() == 17);
  BOOST_TEST(grid.shape().to_string() == "TP 4 x PP 3 x DP 2");
}

BOOST_AUTO_TEST_CASE(a_grid_that_does_not_fit_is_the_users_error) {
  const auto names_options = [](const ConfigurationError& error) {
    const std::string text = error.what();
    return text.find("--tp-size 3 x --pp-size 2") != std::string::npos &&
           text.find("has 8)") != std::string::npos && text.find('\n') == std::string::npos;
  };
  BOOST_CHECK_EXCEPTION(ProcessGrid::derive(8, 3, 2, 0), ConfigurationError, names_options);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, 0, 2, 0), ConfigurationError);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, 2, -1, 0), ConfigurationError);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, 100000, 100000, 0), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(a_rank_or_coordinate_outside_is_a_broken_contract) {
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 8), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, -1), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 0, 2}, 0), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 0).rank_of({.tp = 2, .pp = 0, .dp = 0}), ContractViolation);
}
