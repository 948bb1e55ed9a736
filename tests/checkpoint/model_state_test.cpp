// Initial weights: what they are, in whatever dtypes they are kept.
#include <boost/test/unit_test.hpp>
#include <cmath>

#include "support/mpi_fixture.hpp"
#include "train/test_run.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

GlobalTensors initial_weights(DType compute, bool master) {
  RunShape shape;
  shape.model = small_model(false);
  shape.grid = {1, 1, control().size()};
  shape.global_batch_size = control().size();
  shape.seq_length = 8;
  shape.precision = &precision_of(compute);
  shape.master_weights = master;
  TestRun run(shape, {});
  run.initialize(3);
  return run.weights();
}

double largest_difference(const GlobalTensor& actual, const GlobalTensor& expected) {
  double largest = 0;
  for (std::size_t i = 0; i < expected.values.size(); ++i)
    largest = std::max(largest, std::abs(double{actual.values.at(i)} - expected.values[i]));
  return largest;
}

}  // namespace

BOOST_AUTO_TEST_CASE(initial_weights_are_the_same_in_every_precision) {
  const GlobalTensors exact = initial_weights(DType::fp32, false);
  const GlobalTensors master = initial_weights(DType::bf16, true);
  const GlobalTensors rounded = initial_weights(DType::bf16, false);
  BOOST_REQUIRE_EQUAL(exact.size(), rounded.size());
  for (const auto& [name, tensor] : exact) BOOST_TEST_CONTEXT(name) {
      const bool norm = name.find("norm") != std::string::npos;
      for (const float value : tensor.values)
        if (norm) BOOST_REQUIRE_EQUAL(value, 1.0f);
      BOOST_CHECK_EQUAL(largest_difference(master.at(name), tensor), 0);
      // Half a unit in the last place of deviates below 1, and none of ones.
      BOOST_CHECK_LE(largest_difference(rounded.at(name), tensor), norm ? 0 : std::ldexp(1.0, -9));
    }
}

BOOST_AUTO_TEST_CASE(the_comparison_sees_one_wrong_weight) {
  const GlobalTensors exact = initial_weights(DType::fp32, false);
  GlobalTensor changed = exact.at("model.norm.weight");
  changed.values.front() = 0;
  BOOST_CHECK_EQUAL(largest_difference(changed, exact.at("model.norm.weight")), 1);
}
