// Layers shared out over the parts of a pipeline.
#include "model/layer_partition.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"

using namespace llama3d;

namespace {

std::vector<std::int64_t> counts(const std::vector<LayerRange>& ranges) {
  std::vector<std::int64_t> counts;
  std::int64_t begin = 0;
  for (const LayerRange& range : ranges) {
    BOOST_TEST(range.begin == begin);
    begin = range.end;
    counts.push_back(range.count());
  }
  return counts;
}

/// Costs of the costliest part, by the definition in the header.
double largest_cost(const ModelConfig& config, const std::vector<std::int64_t>& counts) {
  const double head = static_cast<double>(config.vocabulary * config.hidden);
  const double layer =
      (static_cast<double>(config.matrix_parameters()) - head) / static_cast<double>(config.layers);
  double largest = 0;
  for (std::size_t i = 0; i < counts.size(); ++i)
    largest = std::max(largest, static_cast<double>(counts[i]) * layer + (i == 0 ? 0.1 * head : 0) +
                                    (i + 1 == counts.size() ? head : 0));
  return largest;
}

/// Of all ways to share `layers` out over `parts`, the least of the costliest.
double least_cost(const ModelConfig& config, std::int64_t layers, std::size_t parts,
                  std::vector<std::int64_t> before = {}) {
  if (before.size() + 1 == parts) {
    before.push_back(layers);
    return largest_cost(config, before);
  }
  double least = 1e300;
  for (std::int64_t here = 1; here + static_cast<std::int64_t>(parts - before.size()) - 1 <= layers; ++here) {
    auto next = before;
    next.push_back(here);
    least = std::min(least, least_cost(config, layers - here, parts, next));
  }
  return least;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(layer_partition)

BOOST_AUTO_TEST_CASE(no_other_partition_is_cheaper) {
  for (const char* name : {"llama3-8b", "llama3.2-1b", "llama3-tiny"}) {
    const ModelConfig config = load_model_config(name);
    for (const std::int64_t parts : {1, 2, 3, 4}) {
      if (parts > config.layers) continue;
      const auto actual = counts(partition_layers(config, parts));
      BOOST_TEST(std::count_if(actual.begin(), actual.end(), [](auto count) { return count < 1; }) == 0);
      BOOST_TEST(
          largest_cost(config, actual) == least_cost(config, config.layers, static_cast<std::size_t>(parts)),
          boost::test_tools::tolerance(1e-12));
    }
  }
}

// A head costs as much as 2.4 layers of this model, an embedding 0.24: 8.24, 9, 9 and 8.4.
BOOST_AUTO_TEST_CASE(embedding_and_head_count_at_the_ends) {
  const auto parts = counts(partition_layers(load_model_config("llama3-8b"), 4));
  BOOST_TEST(parts == (std::vector<std::int64_t>{8, 9, 9, 6}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(of_equally_cheap_partitions_the_fullest_at_the_front_is_taken) {
  ModelConfig config = load_model_config("llama3-8b");
  config.vocabulary = 8;
  config.layers = 9;
  // Three layers are the least of the costliest; with the embedding they would be more.
  const auto parts = counts(partition_layers(config, 4));
  BOOST_TEST(parts == (std::vector<std::int64_t>{2, 3, 3, 1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(as_many_parts_as_layers_have_one_each_and_more_are_refused) {
  const ModelConfig config = load_model_config("llama3-8b");
  BOOST_TEST(counts(partition_layers(config, 32)) == std::vector<std::int64_t>(32, 1),
             boost::test_tools::per_element());
  BOOST_CHECK_THROW(partition_layers(config, 33), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(given_counts_are_taken_where_they_fit) {
  const ModelConfig config = load_model_config("llama3-8b");
  BOOST_CHECK(partition_layers(config, 2, std::vector<int>{20, 12}) ==
              (std::vector<LayerRange>{{0, 20}, {20, 32}}));
  for (const std::vector<int>& wrong : {std::vector<int>{20, 11}, {32}, {10, 10, 12}, {32, 0}, {33, -1}})
    BOOST_CHECK_THROW(partition_layers(config, 2, wrong), ConfigurationError);
}

BOOST_AUTO_TEST_SUITE_END()
