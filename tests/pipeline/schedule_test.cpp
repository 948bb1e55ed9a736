#include "pipeline/schedule.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "every_schedule.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;
using enum ActionKind;

namespace {

using Actions = std::vector<Action>;

/// "F0 I0 W0": computations by letter, micro-batch and, above 0, chunk.
std::string computes_of(const Schedule& schedule, int stage) {
  std::string text;
  for (const Action& action : schedule.ranks[stage].actions) {
    const char* letter = action.kind == forward           ? "F"
                         : action.kind == backward        ? "B"
                         : action.kind == backward_input  ? "I"
                         : action.kind == backward_weight ? "W"
                                                          : nullptr;
    if (!letter) continue;
    text += fmt::format("{}{}{}", text.empty() ? "" : " ", letter, action.micro_batch);
    if (action.chunk > 0) text += fmt::format(".{}", action.chunk);
  }
  return text;
}

std::vector<std::string> texts(const Actions& actions) {
  std::vector<std::string> texts;
  for (const Action& action : actions) texts.push_back(to_string(action));
  return texts;
}

/// The formulas of the papers for the most micro-batch x chunk pairs a stage holds.
int expected_peak(const Schedule& schedule, int stage) {
  const auto [p, v, m] = schedule.shape;
  switch (schedule.kind) {
    case ScheduleKind::gpipe: return m;
    case ScheduleKind::one_f_one_b:
      return std::min(m, (schedule.receives == ReceiveStart::ahead ? 2 : 1) * (p - 1 - stage) + 1);
    case ScheduleKind::interleaved: return std::min(m * v, 2 * (p - 1 - stage) + (v - 1) * p + 1);
    case ScheduleKind::zero_bubble: return std::min(m, p);
  }
  return -1;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(schedules)

BOOST_AUTO_TEST_CASE(names_and_kinds_map_to_each_other) {
  for (const ScheduleKind kind : kAllKinds) BOOST_TEST((parse_schedule_kind(name_of(kind)) == kind));
  BOOST_TEST((parse_schedule_kind("zero-bubble") == ScheduleKind::zero_bubble));
  BOOST_CHECK_EXCEPTION(parse_schedule_kind("2f2b"), ConfigurationError,
                        says({"`pipeline_schedule`", "'2f2b'", "gpipe, 1f1b, interleaved, zero-bubble"}));
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
  BOOST_CHECK_EXCEPTION(make_schedule(ScheduleKind::one_f_one_b, {2, 2, 4}), ConfigurationError,
                        says({"1f1b", "2 model chunks"}));
  BOOST_CHECK_EXCEPTION(make_schedule(ScheduleKind::interleaved, {2, 1, 4}), ConfigurationError,
                        says({"one model chunk"}));
  BOOST_CHECK_EXCEPTION(make_schedule(ScheduleKind::interleaved, {1, 2, 4}), ConfigurationError,
                        says({"single stage"}));
  BOOST_CHECK_EXCEPTION(make_schedule(ScheduleKind::interleaved, {4, 2, 6}), ConfigurationError,
                        says({"6 micro-batches", "multiple of 4 stages"}));
  BOOST_CHECK_THROW(make_schedule(ScheduleKind::gpipe, {0, 1, 1}), ConfigurationError);
  BOOST_CHECK_THROW(make_schedule(ScheduleKind::gpipe, {1, 0, 1}), ConfigurationError);
  BOOST_CHECK_THROW(make_schedule(ScheduleKind::gpipe, {1, 1, 0}), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(orders_are_those_of_the_papers) {
  const Schedule gpipe = make_schedule(ScheduleKind::gpipe, {3, 1, 3});
  for (int stage = 0; stage < 3; ++stage) BOOST_TEST(computes_of(gpipe, stage) == "F0 F1 F2 B0 B1 B2");

  const Schedule plain = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 4});
  BOOST_TEST(computes_of(plain, 0) == "F0 F1 F2 B0 F3 B1 B2 B3");
  BOOST_TEST(computes_of(plain, 1) == "F0 F1 B0 F2 B1 F3 B2 B3");
  BOOST_TEST(computes_of(plain, 2) == "F0 B0 F1 B1 F2 B2 F3 B3");

  const Schedule eager = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 6}, ReceiveStart::ahead);
  BOOST_TEST(computes_of(eager, 0) == "F0 F1 F2 F3 F4 B0 F5 B1 B2 B3 B4 B5");
  BOOST_TEST(computes_of(eager, 1) == "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5");
  BOOST_TEST(computes_of(eager, 2) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5");

  const Schedule interleaved = make_schedule(ScheduleKind::interleaved, {2, 2, 4});
  BOOST_TEST(computes_of(interleaved, 0) ==
             "F0 F1 F0.1 F1.1 F2 B0.1 F3 B1.1 F2.1 B0 F3.1 B1 B2.1 B3.1 B2 B3");
  BOOST_TEST(computes_of(interleaved, 1) ==
             "F0 F1 F0.1 B0.1 F1.1 B1.1 F2 B0 F3 B1 F2.1 B2.1 F3.1 B3.1 B2 B3");

  const Schedule zero_bubble = make_schedule(ScheduleKind::zero_bubble, {3, 1, 4});
  BOOST_TEST(computes_of(zero_bubble, 0) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3");
  BOOST_TEST(computes_of(zero_bubble, 1) == "F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3");
  BOOST_TEST(computes_of(zero_bubble, 2) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
}

BOOST_AUTO_TEST_CASE(one_stage_computes_and_sends_nothing) {
  BOOST_TEST(computes_of(make_schedule(ScheduleKind::one_f_one_b, {1, 1, 2}), 0) == "F0 B0 F1 B1");
  BOOST_TEST(computes_of(make_schedule(ScheduleKind::zero_bubble, {1, 1, 2}), 0) == "F0 I0 W0 F1 I1 W1");
  for (const Schedule& schedule : every_schedule()) {
    if (schedule.shape.stages > 1) continue;
    const auto& actions = schedule.ranks[0].actions;
    BOOST_TEST(
        std::all_of(actions.begin(), actions.end(), [](const Action& a) { return is_compute(a.kind); }));
  }
}

BOOST_AUTO_TEST_CASE(computations_stand_between_their_receive_and_their_send) {
  const Actions expected{{receive_activation, 0}, {forward, 0},  {send_activation, 0},
                         {receive_activation, 1}, {forward, 1},  {send_activation, 1},
                         {receive_gradient, 0},   {backward, 0}, {send_gradient, 0},
                         {receive_gradient, 1},   {backward, 1}, {send_gradient, 1}};
  const Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 2});
  BOOST_TEST(texts(schedule.ranks[1].actions) == texts(expected), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(receives_ahead_stand_one_computation_before) {
  const Actions expected{{receive_activation, 0}, {receive_activation, 1}, {forward, 0},
                         {send_activation, 0},    {receive_activation, 2}, {forward, 1},
                         {send_activation, 1},    {receive_gradient, 0},   {forward, 2},
                         {send_activation, 2},    {receive_gradient, 1},   {backward, 0},
                         {send_gradient, 0},      {receive_gradient, 2},   {backward, 1},
                         {send_gradient, 1},      {backward, 2},           {send_gradient, 2}};
  const Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 3}, ReceiveStart::ahead);
  BOOST_TEST(texts(schedule.ranks[1].actions) == texts(expected), boost::test_tools::per_element());
  BOOST_CHECK(schedule.receives == ReceiveStart::ahead);
  // A pipeline that is never full has them when they are needed.
  const PipelineShape few{3, 1, 2};
  BOOST_CHECK(make_schedule(ScheduleKind::one_f_one_b, few, ReceiveStart::ahead).receives ==
              ReceiveStart::when_needed);
  BOOST_TEST(texts(make_schedule(ScheduleKind::one_f_one_b, few, ReceiveStart::ahead).ranks[1].actions) ==
                 texts(make_schedule(ScheduleKind::one_f_one_b, few).ranks[1].actions),
             boost::test_tools::per_element());
  // The ring has them as early as it can anyway.
  const PipelineShape ring{2, 2, 4};
  for (int stage = 0; stage < 2; ++stage) {
    const auto actions = [&](ReceiveStart receives) {
      return texts(make_schedule(ScheduleKind::interleaved, ring, receives).ranks[stage].actions);
    };
    BOOST_TEST(actions(ReceiveStart::ahead) == actions(ReceiveStart::when_needed),
               boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(in_the_ring_a_receive_starts_with_the_send_in_front_of_it) {
  const Schedule schedule = make_schedule(ScheduleKind::interleaved, {2, 2, 2});
  const Actions expected{{receive_activation, 0, 0}, {forward, 0, 0}, {send_activation, 0, 0},
                         {receive_activation, 1, 0}, {forward, 1, 0}, {send_activation, 1, 0},
                         {receive_activation, 0, 1}, {forward, 0, 1}};
  Actions beginning = schedule.ranks[1].actions;
  beginning.resize(expected.size());
  BOOST_TEST(texts(beginning) == texts(expected), boost::test_tools::per_element());

  BOOST_TEST(starts_together(expected[2], expected[3]));
  BOOST_TEST(!starts_together(expected[3], expected[2]));
  BOOST_TEST(!starts_together(expected[1], expected[2]));
  BOOST_TEST(!starts_together({send_activation, 0}, {receive_gradient, 0}));
}

BOOST_AUTO_TEST_CASE(transfers_join_neighbouring_chunks_around_the_ring) {
  const PipelineShape shape{4, 2, 4};
  const Action send{send_activation, 3, 0};
  BOOST_TEST(counterpart(shape, 1, send).stage == 2);
  const PlacedAction round = counterpart(shape, 3, send);
  BOOST_TEST(round.stage == 0);
  BOOST_TEST((round.action == Action{receive_activation, 3, 1}));
  const PlacedAction back = counterpart(shape, 0, {send_gradient, 3, 1});
  BOOST_TEST(back.stage == 3);
  BOOST_TEST((back.action == Action{receive_gradient, 3, 0}));
  BOOST_CHECK_THROW(counterpart(shape, 0, {receive_activation, 0, 0}), ContractViolation);
  BOOST_CHECK_THROW(counterpart(shape, 3, {send_activation, 0, 1}), ContractViolation);
  BOOST_CHECK_THROW(counterpart(shape, 0, {forward, 0, 0}), ContractViolation);

  for (const Schedule& schedule : every_schedule()) {
    for (int stage = 0; stage < schedule.shape.stages; ++stage) {
      for (const Action& action : schedule.ranks[stage].actions) {
        if (is_compute(action.kind)) continue;
        const PlacedAction there = counterpart(schedule.shape, stage, action);
        const PlacedAction here = counterpart(schedule.shape, there.stage, there.action);
        BOOST_REQUIRE((here.stage == stage && here.action == action));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(peak_live_activations_are_those_of_the_papers) {
  for (const auto receives : {ReceiveStart::when_needed, ReceiveStart::ahead})
    for (const Schedule& schedule : every_schedule(receives)) {
      for (int stage = 0; stage < schedule.shape.stages; ++stage) {
        BOOST_REQUIRE_MESSAGE(schedule.ranks[stage].peak_live_activations == expected_peak(schedule, stage),
                              describe(schedule) << ", stage " << stage << ": "
                                                 << schedule.ranks[stage].peak_live_activations
                                                 << " live, not " << expected_peak(schedule, stage));
      }
    }
}

BOOST_AUTO_TEST_CASE(weight_gradients_add_up_in_the_order_of_the_micro_batches) {
  for (const Schedule& schedule : every_schedule()) {
    for (const RankSchedule& rank : schedule.ranks) {
      std::vector<int> next(static_cast<std::size_t>(schedule.shape.chunks), 0);
      for (const Action& action : rank.actions) {
        if (action.kind != backward && action.kind != backward_weight) continue;
        BOOST_REQUIRE_EQUAL(action.micro_batch, next[static_cast<std::size_t>(action.chunk)]++);
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()
