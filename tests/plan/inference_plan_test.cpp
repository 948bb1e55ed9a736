// The memory of a generation: planned before it is taken, refused with what to change.
#include "plan/inference_plan.hpp"

#include <boost/test/unit_test.hpp>

#include "compute/host/host_device.hpp"
#include "compute/kernels.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

InferenceShape shape() {
  InferenceShape s;
  s.model = load_model_config("llama3-tiny");
  s.sequences = 4;
  s.capacity = 100;
  s.rows = 64;
  return s;
}

std::size_t bytes_of(const InferencePlan& plan, const std::string& category) {
  for (const auto& entry : plan.memory.entries)
    if (entry.category == category) return entry.bytes;
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_generation_holds_parameters_and_cache_once) {
  const auto device = make_host_device(1);
  for (const DType compute : {DType::fp32, DType::bf16}) {
    InferenceShape s = shape();
    s.compute = compute;
    const InferencePlan plan = make_inference_plan(s, 0, device->kernels());
    const auto size = static_cast<std::int64_t>(size_of(compute));
    // Keys and values of every layer; paddings of an arena are at most 256 bytes a tensor.
    const std::int64_t cache =
        s.model.layers * 4 * 100 * 2 * s.model.key_value_heads * s.model.head_dim * size;
    BOOST_CHECK_GE(bytes_of(plan, "cache"), cache);
    BOOST_CHECK_LT(bytes_of(plan, "cache"), cache + 256 * s.model.layers);
    const std::int64_t parameters = s.model.parameters() * size;
    BOOST_CHECK_GE(bytes_of(plan, "parameters"), parameters);
    BOOST_CHECK_LT(bytes_of(plan, "parameters"), parameters + parameters / 100);
    // What is taken is what was planned.
    const InferenceArenas arenas = allocate(plan, *device);
    BOOST_CHECK_EQUAL(arenas.cache.used(), bytes_of(plan, "cache"));
    BOOST_CHECK_EQUAL(arenas.activations.used(), bytes_of(plan, "activations"));
  }
}

BOOST_AUTO_TEST_CASE(two_tp_ranks_hold_half_each) {
  const auto device = make_host_device(1);
  const InferencePlan one = make_inference_plan(shape(), 0, device->kernels());
  InferenceShape s = shape();
  s.tp = 2;
  const InferencePlan half = make_inference_plan(s, 1, device->kernels());
  BOOST_CHECK_EQUAL(2 * bytes_of(half, "cache"), bytes_of(one, "cache"));
  BOOST_CHECK_LT(bytes_of(half, "parameters"), bytes_of(one, "parameters") * 51 / 100);
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused_with_what_to_change) {
  const auto device = make_host_device(1);
  const InferencePlan plan = make_inference_plan(shape(), 0, device->kernels());
  const std::size_t needed = plan.memory.total() + 1000;
  BOOST_CHECK_NO_THROW(check_fits(plan, {needed, 1000, {}}));
  BOOST_CHECK_EXCEPTION(check_fits(plan, {needed - 1, 1000, {}}), ConfigurationError,
                        says({"cache", "`batch_size`", "`precision` bf16", "`max_new_tokens`", "`tp_size`"}));
  InferenceShape s = shape();
  s.capacity = s.model.max_positions + 1;
  BOOST_CHECK_THROW(make_inference_plan(s, 0, device->kernels()), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(steps_have_few_different_sizes) {
  for (const int tp : {1, 2, 3, 5, 8}) {
    const auto layout = InferenceLayout::make(load_model_config("llama3-8b"), 1, DType::bf16, 64, 4096, 3000);
    InferenceLayout split = layout;
    split.shape.tp = tp;
    std::int64_t sizes = 0, last = 0;
    for (std::int64_t tokens = 1; tokens <= 3000; ++tokens) {
      const std::int64_t rows = split.padded(tokens);
      BOOST_REQUIRE_GE(rows, tokens);
      BOOST_REQUIRE_EQUAL(rows % tp, 0);
      BOOST_REQUIRE_LE(static_cast<double>(rows), 1.25 * static_cast<double>(tokens) + 2 * tp);
      sizes += rows != last;
      last = rows;
    }
    BOOST_CHECK_LE(sizes, 48);
  }
}
