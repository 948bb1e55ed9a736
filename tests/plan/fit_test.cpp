// What a run that does not fit is told: options that, followed, make it fit.
#include <boost/test/unit_test.hpp>

#include <limits>

#include "base/error.hpp"
#include "compute/host/host_device.hpp"
#include "compute/kernels.hpp"
#include "plan/run_plan.hpp"

using namespace llama3d;

namespace {

constexpr std::size_t reserved = 1 << 20;

RunShape large_run() {
  RunShape shape;
  shape.model = load_model_config("llama3-tiny");
  shape.grid = {1, 1, 1};
  shape.micro_batch_size = 4;
  shape.global_batch_size = 8;
  shape.seq_length = 256;
  shape.precision = &precision_of(DType::bf16);
  return shape;
}

class Fixture {
 public:
  std::size_t needs(const RunShape& shape) const {
    return check_fits(shape, device_->kernels(), {std::size_t{1} << 60, reserved, std::size_t{1} << 60})
        .total();
  }
  /// The refusal, or "" when the run fits.
  std::string refusal(const RunShape& shape, std::size_t bytes,
                      std::optional<std::size_t> host = std::nullopt) const {
    try {
      check_fits(shape, device_->kernels(), {bytes, reserved, host});
      return "";
    } catch (const ConfigurationError& error) {
      return error.what();
    }
  }

 private:
  std::unique_ptr<Device> device_ = make_host_device(1);
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(the_plan_holds_what_the_device_has_reserved, Fixture) {
  const auto device = make_host_device(1);
  const RankPlan plan = make_rank_plan(large_run(), 0, device->kernels());
  BOOST_CHECK_EQUAL(needs(large_run()), plan.memory.total() + reserved);
  BOOST_CHECK_EQUAL(refusal(large_run(), needs(large_run())), "");
  BOOST_CHECK_NE(refusal(large_run(), needs(large_run()) - 1), "");
}

BOOST_FIXTURE_TEST_CASE(one_option_that_is_enough_is_named_alone, Fixture) {
  RunShape cheap = large_run();
  cheap.recompute = Recompute::cheap;
  const std::size_t room = needs(cheap);
  BOOST_REQUIRE_LT(room, needs(large_run()));
  const std::string text = refusal(large_run(), room);
  BOOST_CHECK_MESSAGE(contains(text, "; with `recompute cheap` it needs "), text);

  RunShape one = large_run();
  one.micro_batch_size = 1;
  BOOST_REQUIRE_LT(needs(one), room);
  const std::string smaller = refusal(large_run(), needs(one));
  BOOST_CHECK_MESSAGE(contains(smaller, "; with `micro_batch_size 1` it needs "), smaller);
}

BOOST_FIXTURE_TEST_CASE(receives_ahead_are_given_up_first, Fixture) {
  RunShape late = large_run();
  late.grid = {1, 2, 1};
  late.micro_batch_size = 1;
  RunShape ahead = late;
  ahead.pipeline_receive_ahead = true;
  BOOST_REQUIRE_LT(needs(late), needs(ahead));
  const std::string text = refusal(ahead, needs(late));
  BOOST_CHECK_MESSAGE(contains(text, "; with `no_pipeline_receive_ahead` it needs "), text);
}

BOOST_FIXTURE_TEST_CASE(several_options_when_one_is_not_enough, Fixture) {
  RunShape least = large_run();
  least.recompute = Recompute::full;
  least.micro_batch_size = 1;
  least.gradient_dtype = least.optimizer_dtype = DType::bf16;
  least.master_weights = false;
  const std::string text = refusal(large_run(), needs(least));
  BOOST_CHECK_MESSAGE(contains(text,
                               "with `micro_batch_size 1` `recompute full` `gradient_dtype "
                               "bf16` `optimizer_dtype bf16` `master_weights none` it needs"),
                      text);
  const std::string nothing = refusal(large_run(), needs(least) - 1);
  BOOST_CHECK_MESSAGE(contains(nothing, "even with ") && contains(nothing, "raise `tp_size`"), nothing);
  const std::string already = refusal(least, needs(least) - 1);
  BOOST_CHECK_MESSAGE(contains(already, "; raise `tp_size`"), already);
}

BOOST_FIXTURE_TEST_CASE(an_optimizer_is_offloaded_to_a_host_that_has_room, Fixture) {
  RunShape resident = large_run();
  resident.micro_batch_size = 1;
  resident.recompute = Recompute::cheap;
  resident.offload_chunk = 1 << 16;
  RunShape offloaded = resident;
  offloaded.offload_optimizer = true;
  const std::size_t room = needs(offloaded), large = std::size_t{1} << 30;
  BOOST_REQUIRE_LT(room, needs(resident));

  const std::string text = refusal(resident, room, large);
  BOOST_CHECK_MESSAGE(contains(text, "; with `offload_optimizer` it needs "), text);
  BOOST_CHECK_EQUAL(refusal(offloaded, room, large), "");
  // Neither a host without room nor a device that is the host gains anything by it.
  for (const auto host : {std::optional<std::size_t>(1 << 20), std::optional<std::size_t>()}) {
    const std::string other = refusal(resident, room, host);
    BOOST_CHECK_MESSAGE(other != "" && !contains(other, "`offload_optimizer`"), other);
    BOOST_CHECK_NE(refusal(offloaded, room, host), "");
  }
  const std::string full = refusal(offloaded, large, 1 << 20);
  BOOST_CHECK_MESSAGE(contains(full, "`offload_optimizer` keeps ") && contains(full, "of 1.00 MiB there are"),
                      full);
}

BOOST_FIXTURE_TEST_CASE(a_batch_beyond_what_can_be_counted_is_refused, Fixture) {
  const auto refused = [&](std::int64_t micro_batch, std::int64_t global_batch, const std::string& words) {
    RunShape shape = large_run();
    shape.grid = {1, 1, 2};
    shape.micro_batch_size = micro_batch;
    shape.global_batch_size = global_batch;
    const std::string text = refusal(shape, SIZE_MAX);
    BOOST_CHECK_MESSAGE(contains(text, words), text);
  };
  constexpr std::int64_t large = std::numeric_limits<std::int64_t>::max();
  refused(large, large, "`micro_batch_size 9223372036854775807` of `seq_length 256`: ");
  refused(1 << 23, 1 << 24, "use at most 8388607");
  refused(4, std::int64_t{1} << 32, "`global_batch_size 4294967296`: 536870912 micro-batches of 1024 tokens");
  refused(4, large - 7, "at most 524288, or a larger `micro_batch_size`");  // 2^16 micro-batches
  refused(1 << 16, 1 << 24, "at most 16646144");                            // 127 of 2^24 tokens
  RunShape shape = large_run();
  shape.global_batch_size = 4 << 16;
  BOOST_CHECK_EQUAL(shape.micro_batches(), 1 << 16);
  shape.seq_length = 0;
  BOOST_CHECK_THROW(shape.micro_batches(), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(an_evaluation_takes_no_gradients_and_no_optimizer) {
  const auto device = make_host_device(1);
  RunShape shape = large_run();
  shape.grid = {2, 2, 2};
  const RankPlan training = make_rank_plan(shape, 0, device->kernels());
  shape.training = false;
  const RankPlan evaluation = make_rank_plan(shape, 0, device->kernels());
  const auto bytes = [](const RankPlan& plan, const std::string& category) {
    for (const auto& entry : plan.memory.entries)
      if (entry.category == category) return entry.bytes;
    return std::size_t{0};
  };
  BOOST_CHECK_GT(bytes(training, "gradients"), 0u);
  BOOST_CHECK_EQUAL(bytes(evaluation, "gradients"), 0u);
  BOOST_CHECK_EQUAL(bytes(evaluation, "optimizer"), 0u);
  BOOST_CHECK_EQUAL(bytes(evaluation, "parameters"), bytes(training, "parameters"));
  BOOST_CHECK_LT(2 * bytes(evaluation, "activations"), bytes(training, "activations"));
}

BOOST_AUTO_TEST_CASE(an_evaluation_has_a_schedule_that_there_is) {
  const auto device = make_host_device(1);
  RunShape shape = large_run();
  shape.training = false;
  const auto possible = [&](ScheduleKind kind, int chunks, int stages) {
    shape.pipeline_schedule = kind;
    shape.pipeline_chunks = chunks;
    shape.grid = {1, stages, 1};
    try {
      make_rank_plan(shape, 0, device->kernels());
      return true;
    } catch (const ConfigurationError&) {
      return false;
    }
  };
  BOOST_CHECK(possible(ScheduleKind::interleaved, 2, 2));
  BOOST_CHECK(!possible(ScheduleKind::interleaved, 2, 1));
  BOOST_CHECK(!possible(ScheduleKind::one_f_one_b, 2, 1));
  BOOST_CHECK(!possible(ScheduleKind::gpipe, 2, 2));
}
