#include <boost/test/unit_test.hpp>
#include <map>
#include <set>
#include <string>

#include "base/error.hpp"
#include "comm/process_grid.hpp"

using namespace llama3d;

namespace {

/// Sizes of TP, PP, DP and CP.
const std::vector<GridShape>& shapes() {
  static const std::vector<GridShape> all = {
      {1, 1, 1},    {2, 1, 1},    {1, 2, 1},    {1, 1, 2},    {2, 2, 2},     {3, 2, 1},    {1, 3, 5},
      {4, 3, 2},    {8, 4, 4},    {8, 16, 3},   {7, 5, 11},   {8, 16, 32},   {1, 1, 3000}, {16, 2, 100},
      {1, 1, 1, 2}, {2, 2, 2, 2}, {2, 1, 3, 4}, {3, 5, 2, 7}, {8, 16, 16, 2}};
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

BOOST_AUTO_TEST_CASE(ranks_in_the_world_and_along_the_axes_are_a_bijection_by_the_stated_formula) {
  for (const GridShape& shape : shapes()) {
    for (int rank = 0; rank < shape.world(); ++rank) {
      const ProcessGrid grid(shape, rank);
      for (const Axis axis : all_axes)
        BOOST_REQUIRE(0 <= grid.rank(axis) && grid.rank(axis) < grid.size(axis));
      const int tp = grid.rank(Axis::tensor), cp = grid.rank(Axis::context), pp = grid.rank(Axis::pipeline),
                dp = grid.rank(Axis::data);
      BOOST_REQUIRE_EQUAL(((pp * shape.dp + dp) * shape.cp + cp) * shape.tp + tp, rank);
      BOOST_REQUIRE_EQUAL(grid.rank(), rank);
      BOOST_REQUIRE_EQUAL(grid.first_stage(), pp == 0);
      BOOST_REQUIRE_EQUAL(grid.last_stage(), pp == shape.pp - 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(sizes_are_those_of_the_shape) {
  const GridShape shape{.tp = 2, .pp = 3, .dp = 5, .cp = 7};
  BOOST_TEST(shape.size(Axis::tensor) == 2);
  BOOST_TEST(shape.size(Axis::pipeline) == 3);
  BOOST_TEST(shape.size(Axis::data) == 5);
  BOOST_TEST(shape.size(Axis::context) == 7);
  BOOST_TEST(shape.world() == 2 * 3 * 5 * 7);
}

BOOST_AUTO_TEST_CASE(groups_are_disjoint_and_cover_the_world) {
  for (const GridShape& shape : shapes())
    for (const Axis axis : all_axes)
      BOOST_TEST(
          partitions(shape, shape.size(axis), [&](const ProcessGrid& grid) { return grid.group(axis); }),
          shape.to_string() << " " << name_of(axis));
}

BOOST_AUTO_TEST_CASE(the_partition_check_sees_overlapping_groups) {
  const GridShape shape{2, 2, 2};
  BOOST_TEST(!partitions(shape, 2, [](const ProcessGrid& grid) {
    auto group = grid.group(Axis::tensor);
    if (grid.rank() == 5) group.front() = 0;
    return group;
  }));
  BOOST_TEST(!partitions(shape, 2, [](const ProcessGrid&) { return std::vector<int>{0, 1}; }));
}

BOOST_AUTO_TEST_CASE(members_of_a_group_differ_along_its_axis_only) {
  for (const GridShape& shape : shapes())
    for (int rank = 0; rank < shape.world(); rank += 1 + shape.world() / 100) {
      const ProcessGrid grid(shape, rank);
      for (const Axis axis : all_axes) {
        const auto group = grid.group(axis);
        BOOST_REQUIRE_EQUAL(group[static_cast<std::size_t>(grid.rank(axis))], rank);
        for (int place = 0; place < grid.size(axis); ++place) {
          const ProcessGrid member(shape, group[static_cast<std::size_t>(place)]);
          for (const Axis other : all_axes)
            BOOST_REQUIRE_EQUAL(member.rank(other), other == axis ? place : grid.rank(other));
        }
      }
    }
}

BOOST_AUTO_TEST_CASE(ranks_of_one_group_have_its_color_and_no_others) {
  for (const GridShape& shape : shapes())
    for (const Axis axis : all_axes) {
      std::map<int, std::set<std::vector<int>>> groups_of_color;
      for (int rank = 0; rank < shape.world(); ++rank) {
        const ProcessGrid grid(shape, rank);
        groups_of_color[grid.color(axis)].insert(grid.group(axis));
      }
      BOOST_TEST(std::ssize(groups_of_color) == shape.world() / shape.size(axis));
      for (const auto& [color, groups] : groups_of_color) BOOST_TEST((color >= 0 && groups.size() == 1));
    }
}

BOOST_AUTO_TEST_CASE(both_ends_of_several_stages_are_in_an_embedding_group) {
  const auto ends = [](GridShape shape) {
    int count = 0;
    for (int rank = 0; rank < shape.world(); ++rank) count += ProcessGrid(shape, rank).in_embedding_group();
    return count;
  };
  BOOST_TEST(ends({.tp = 2, .pp = 1, .dp = 2}) == 0);
  BOOST_TEST(ends({.tp = 2, .pp = 2, .dp = 2}) == 8);
  BOOST_TEST(ends({.tp = 2, .pp = 4, .dp = 3, .cp = 2}) == 2 * 2 * 3 * 2);
}

BOOST_AUTO_TEST_CASE(tensor_parallel_neighbours_are_neighbours_in_the_world) {
  const auto group = [](GridShape shape, int rank, Axis axis) {
    return ProcessGrid(shape, rank).group(axis);
  };
  const GridShape shape{.tp = 2, .pp = 2, .dp = 2};
  const std::vector<int> tp = {4, 5}, cp = {5}, pp = {1, 5}, dp = {5, 7};
  BOOST_TEST(group(shape, 5, Axis::tensor) == tp, boost::test_tools::per_element());
  BOOST_TEST(group(shape, 5, Axis::context) == cp, boost::test_tools::per_element());
  BOOST_TEST(group(shape, 5, Axis::pipeline) == pp, boost::test_tools::per_element());
  BOOST_TEST(group(shape, 5, Axis::data) == dp, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(context_neighbours_are_the_next_after_tensor_parallel_ones) {
  const ProcessGrid grid({.tp = 2, .pp = 2, .dp = 2, .cp = 2}, 5);
  const std::vector<int> tp = {4, 5}, cp = {5, 7}, dp = {1, 5}, pp = {5, 13};
  BOOST_TEST(grid.group(Axis::tensor) == tp, boost::test_tools::per_element());
  BOOST_TEST(grid.group(Axis::context) == cp, boost::test_tools::per_element());
  BOOST_TEST(grid.group(Axis::data) == dp, boost::test_tools::per_element());
  BOOST_TEST(grid.group(Axis::pipeline) == pp, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(data_parallel_size_follows_from_the_world) {
  const ProcessGrid grid = ProcessGrid::derive(24, {.tp = 4, .pp = 3}, 17);
  BOOST_TEST((grid.shape() == GridShape{.tp = 4, .pp = 3, .dp = 2}));
  BOOST_TEST(grid.rank() == 17);
  BOOST_TEST(grid.shape().to_string() == "TP 4 x PP 3 x DP 2");
  const ProcessGrid with_context = ProcessGrid::derive(24, {.tp = 2, .pp = 3, .cp = 2}, 17);
  BOOST_TEST((with_context.shape() == GridShape{.tp = 2, .pp = 3, .dp = 2, .cp = 2}));
  BOOST_TEST(with_context.shape().to_string() == "TP 2 x CP 2 x PP 3 x DP 2");
}

BOOST_AUTO_TEST_CASE(a_grid_that_does_not_fit_is_the_users_error) {
  const auto names_options = [](const ConfigurationError& error) {
    const std::string text = error.what();
    return text.find("`tp_size 3` x `pp_size 2`") != std::string::npos &&
           text.find("has 8)") != std::string::npos && text.find('\n') == std::string::npos;
  };
  BOOST_CHECK_EXCEPTION(ProcessGrid::derive(8, {.tp = 3, .pp = 2}, 0), ConfigurationError, names_options);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, {.tp = 0, .pp = 2}, 0), ConfigurationError);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, {.tp = 2, .pp = -1}, 0), ConfigurationError);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, {.tp = 100000, .pp = 100000}, 0), ConfigurationError);
  BOOST_CHECK_THROW(ProcessGrid::derive(8, {.tp = 2, .pp = 2, .cp = 3}, 0), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(a_rank_outside_the_world_or_a_group_is_a_broken_contract) {
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 8), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, -1), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 0, 2}, 0), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2, 0}, 0), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 0).member(Axis::tensor, 2), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 0).member(Axis::context, 1), ContractViolation);
  BOOST_CHECK_THROW(ProcessGrid({2, 2, 2}, 0).member(Axis::data, -1), ContractViolation);
}
