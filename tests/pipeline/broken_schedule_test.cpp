// Negative controls of the simulator: each way to break a schedule is noticed, with rank and action.
#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "every_schedule.hpp"
#include "pipeline/simulator.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;
using enum ActionKind;

namespace {

using Actions = std::vector<Action>;

void play(const Schedule& schedule) {
  simulate(schedule, {ActionCosts{}});
}

Actions::iterator find(Schedule& schedule, int rank, const Action& action) {
  Actions& actions = schedule.ranks[rank].actions;
  const auto found = std::find(actions.begin(), actions.end(), action);
  BOOST_REQUIRE_MESSAGE(found != actions.end(), "rank " << rank << " lacks " << to_string(action));
  return found;
}

void swap(Schedule& schedule, int rank, const Action& a, const Action& b) {
  std::iter_swap(find(schedule, rank, a), find(schedule, rank, b));
}

/// Moves an action up to the place of another.
void move_to(Schedule& schedule, int rank, const Action& action, int place) {
  const auto from = find(schedule, rank, action);
  std::rotate(schedule.ranks[rank].actions.begin() + place, from, from + 1);
}

std::vector<Schedule> some_of_each_kind() {
  return {make_schedule(ScheduleKind::gpipe, {3, 1, 4}), make_schedule(ScheduleKind::one_f_one_b, {3, 1, 4}),
          make_schedule(ScheduleKind::interleaved, {3, 2, 6}),
          make_schedule(ScheduleKind::zero_bubble, {3, 1, 4})};
}

/// Calls visit(schedule, rank, index) for every action of some schedules.
template <class Visit>
void for_each_action(Visit visit) {
  for (const Schedule& schedule : some_of_each_kind()) {
    for (int rank = 0; rank < schedule.shape.stages; ++rank) {
      for (std::size_t i = 0; i < schedule.ranks[rank].actions.size(); ++i) visit(schedule, rank, i);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(broken_schedules)

BOOST_AUTO_TEST_CASE(any_missing_action_is_named) {
  for_each_action([](Schedule schedule, int rank, std::size_t i) {
    Actions& actions = schedule.ranks[rank].actions;
    const Action missing = actions[i];
    actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(i));
    BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                          says({fmt::format("rank {} never does {}", rank, to_string(missing))}));
  });
}

BOOST_AUTO_TEST_CASE(any_repeated_action_is_named) {
  for_each_action([](Schedule schedule, int rank, std::size_t i) {
    Actions& actions = schedule.ranks[rank].actions;
    const Action repeated = actions[i];
    actions.push_back(repeated);
    BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                          says({fmt::format("rank {} does {} twice", rank, to_string(repeated))}));
  });
}

BOOST_AUTO_TEST_CASE(swapped_actions_are_named) {
  Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 4});
  swap(schedule, 1, {forward, 2}, {send_activation, 2});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 1 does send_activation(micro-batch 2", "before forward(micro-batch 2"}));

  schedule = make_schedule(ScheduleKind::one_f_one_b, {3, 1, 4});
  swap(schedule, 2, {forward, 3}, {backward, 3});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 2 does backward(micro-batch 3", "before forward(micro-batch 3"}));

  schedule = make_schedule(ScheduleKind::zero_bubble, {2, 1, 3});
  swap(schedule, 0, {backward_input, 1}, {backward_weight, 1});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 0 does backward_weight(micro-batch 1", "before backward_input"}));
}

BOOST_AUTO_TEST_CASE(receives_out_of_order_are_named) {
  Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 3});
  move_to(schedule, 1, {receive_activation, 1}, 0);
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 1 does receive_activation(micro-batch 1",
                              "where rank 0 does send_activation(micro-batch 0"}));
}

BOOST_AUTO_TEST_CASE(a_backward_both_whole_and_split_is_named) {
  Schedule schedule = make_schedule(ScheduleKind::zero_bubble, {2, 1, 3});
  schedule.ranks[0].actions.push_back({backward, 1});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation, says({"rank 0 does backward(micro-batch 1"}));
}

BOOST_AUTO_TEST_CASE(transfers_beyond_the_model_are_named) {
  Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 2});
  schedule.ranks[0].actions.insert(schedule.ranks[0].actions.begin(), {receive_activation, 0});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 0 does receive_activation(micro-batch 0", "no predecessor"}));
  schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 2});
  schedule.ranks[1].actions.push_back({send_activation, 0});
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"rank 1 does send_activation(micro-batch 0", "no successor"}));
}

BOOST_AUTO_TEST_CASE(actions_outside_of_the_shape_are_named) {
  for (const Action& foreign : {Action{forward, 2}, Action{forward, -1}, Action{forward, 0, 1}}) {
    Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 2});
    schedule.ranks[1].actions.push_back(foreign);
    BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                          says({"rank 1", to_string(foreign), "not of this"}));
  }
  Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 2});
  schedule.ranks.pop_back();
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation, says({"1 ranks for 2 stages"}));
}

BOOST_AUTO_TEST_CASE(too_few_slots_or_buffers_are_named) {
  Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 4});
  --schedule.ranks[0].peak_live_activations;
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation, says({"rank 0", "1 live", "has 2"}));

  schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 4});
  move_to(schedule, 1, {receive_activation, 1}, 1);
  move_to(schedule, 1, {receive_activation, 2}, 2);
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation, says({"rank 1", "receive_activation", "buffers"}));
}

BOOST_AUTO_TEST_CASE(ranks_that_wait_for_each_other_are_named) {
  // The last rank wants its second input before it gives the first gradient, and the first rank the reverse.
  Schedule schedule{ScheduleKind::one_f_one_b, {2, 1, 2}, {}};
  schedule.ranks.push_back({{{forward, 0},
                             {send_activation, 0},
                             {receive_gradient, 0},
                             {backward, 0},
                             {forward, 1},
                             {send_activation, 1},
                             {receive_gradient, 1},
                             {backward, 1}},
                            1});
  schedule.ranks.push_back({{{receive_activation, 0},
                             {forward, 0},
                             {receive_activation, 1},
                             {forward, 1},
                             {backward, 0},
                             {send_gradient, 0},
                             {backward, 1},
                             {send_gradient, 1}},
                            2});
  BOOST_CHECK_EXCEPTION(
      play(schedule), ContractViolation,
      says({"deadlocks when sends complete at once",
            "rank 0 at backward(micro-batch 0, chunk 0) waiting for receive_gradient(micro-batch 0, chunk 0)",
            "rank 1 at forward(micro-batch 1, chunk 0) waiting for receive_activation(micro-batch 1, chunk "
            "0)"}));
}

BOOST_AUTO_TEST_CASE(a_receive_that_holds_up_what_it_waits_for_is_named) {
  // The forward may wait for all that was started before: for a gradient that comes of this forward.
  Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 1});
  move_to(schedule, 0, {receive_gradient, 0}, 0);
  BOOST_CHECK_EXCEPTION(
      play(schedule), ContractViolation,
      says({"deadlocks when computations wait for all that was started before",
            "rank 0 at forward(micro-batch 0, chunk 0) waiting for receive_gradient(micro-batch 0, chunk 0)",
            "rank 1 at forward(micro-batch 0, chunk 0)"}));
}

BOOST_AUTO_TEST_CASE(a_ring_of_sends_ahead_of_receives_deadlocks) {
  // The receive that would start together with the send now comes after the next computation, if that can
  // wait.
  Schedule schedule = make_schedule(ScheduleKind::interleaved, {3, 2, 6});
  for (RankSchedule& rank : schedule.ranks) {
    Actions& actions = rank.actions;
    for (std::size_t i = 0; i + 2 < actions.size(); ++i) {
      if (!starts_together(actions[i], actions[i + 1]) || actions[i].kind != send_activation) continue;
      const Action& compute = actions[i + 2];
      if (is_compute(compute.kind) && compute.kind != forward) std::swap(actions[i + 1], actions[i + 2]);
    }
  }
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"deadlocks when sends complete only with their receives", "rank 0 at"}));
}

BOOST_AUTO_TEST_CASE(a_ring_of_receives_ahead_of_sends_deadlocks) {
  Schedule schedule = make_schedule(ScheduleKind::interleaved, {3, 2, 6});
  for (RankSchedule& rank : schedule.ranks) {
    Actions& actions = rank.actions;
    for (std::size_t i = 0; i + 1 < actions.size(); ++i) {
      if (starts_together(actions[i], actions[i + 1])) std::swap(actions[i], actions[i + 1]);
    }
  }
  BOOST_CHECK_EXCEPTION(play(schedule), ContractViolation,
                        says({"deadlocks when sends complete only with their receives", "rank 2 at"}));
}

BOOST_AUTO_TEST_SUITE_END()
