// A context axis in the plan: each of its ranks holds a part of every sequence's tokens, and all parameters.
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "compute/host/host_device.hpp"
#include "plan/run_plan.hpp"
#include "support/error_message.hpp"

using namespace llama3d;

namespace {

RankPlan plan_of(const GridShape& grid, int rank = 0, std::int64_t sequence = 256) {
  RunShape shape;
  shape.model = load_model_config("llama3-tiny");
  shape.grid = grid;
  shape.micro_batch_size = 4;
  shape.global_batch_size = 8;
  shape.seq_length = sequence;
  const auto device = make_host_device(1);
  return make_rank_plan(shape, rank, device->kernels());
}

std::size_t bytes_of(const MemoryPlan& memory, std::string_view category) {
  for (const auto& entry : memory.entries)
    if (entry.category == category) return entry.bytes;
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(context_axis)

BOOST_AUTO_TEST_CASE(two_ranks_hold_half_the_tokens_and_all_parameters) {
  const RankPlan one = plan_of({}), first = plan_of({.cp = 2}, 0), second = plan_of({.cp = 2}, 1);
  BOOST_TEST(one.layout.shape.rows == 4 * 256);
  BOOST_TEST(first.layout.shape.rows == 4 * 128);
  BOOST_TEST(first.layout.shape.positions == 256);  // a part may lie anywhere in the sequence
  BOOST_TEST(first.table.arena_elements() == one.table.arena_elements());
  BOOST_TEST(first.pipeline.micro_batches == one.pipeline.micro_batches);
  BOOST_TEST(bytes_of(first.memory, "parameters") == bytes_of(one.memory, "parameters"));
  BOOST_TEST(bytes_of(first.memory, "activations") < bytes_of(one.memory, "activations"));
  BOOST_TEST(first.memory.to_string() == second.memory.to_string());
}

BOOST_AUTO_TEST_CASE(its_size_divides_the_sequence) {
  BOOST_CHECK_EXCEPTION(plan_of({.cp = 3}), ConfigurationError,
                        test::says({"`seq_length 256`", "divisible by CP 3"}));
}

BOOST_AUTO_TEST_SUITE_END()
