#include "pipeline/simulator.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <map>
#include <tuple>

#include "base/error.hpp"
#include "every_schedule.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

// Sums of at most some hundred durations below 100 in double: far less than this.
constexpr double kRounding = 1e-9;

double work(const PipelineShape& shape, const ActionCosts& costs) {
  return shape.micro_batches * shape.chunks * (costs.forward + costs.backward_input + costs.backward_weight);
}

/// Idle time of each rank by the papers, without communication.
double textbook_bubble(const Schedule& schedule, const ActionCosts& costs) {
  const int others = schedule.shape.stages - 1;
  if (schedule.kind == ScheduleKind::zero_bubble)
    return others * (costs.forward + costs.backward_input - costs.backward_weight);
  return others * (costs.forward + costs.backward_input + costs.backward_weight);
}

/// ZB-H1's figure needs a full pipeline (and weight parts no longer than the others, as in the costs below).
bool textbook_applies(const Schedule& schedule) {
  return schedule.kind != ScheduleKind::zero_bubble || schedule.shape.micro_batches >= schedule.shape.stages;
}

using Key = std::tuple<ActionKind, int, int>;  // kind, micro-batch, global chunk

std::map<Key, TimedAction> by_global_chunk(const Schedule& schedule, const Simulation& simulation) {
  std::map<Key, TimedAction> found;
  for (int stage = 0; stage < schedule.shape.stages; ++stage) {
    for (const TimedAction& timed : simulation.timeline[stage]) {
      const auto& [kind, micro_batch, chunk] = timed.action;
      found[{kind, micro_batch, schedule.shape.global_chunk(stage, chunk)}] = timed;
    }
  }
  return found;
}

/// Number of computations that begin before what they need is there, or while their rank is busy.
int count_too_early(const Schedule& schedule, const Simulation& simulation,
                    const std::vector<ActionCosts>& costs) {
  using enum ActionKind;
  const auto found = by_global_chunk(schedule, simulation);
  const auto gradient_kind = schedule.kind == ScheduleKind::zero_bubble ? backward_input : backward;
  const auto communication = [&](int g) { return costs[costs.size() == 1 ? 0 : g].communication; };
  int violations = 0;
  for (int micro_batch = 0; micro_batch < schedule.shape.micro_batches; ++micro_batch) {
    for (int g = 0; g + 1 < schedule.shape.global_chunks(); ++g) {
      const auto& [f, next_f] =
          std::pair{found.at({forward, micro_batch, g}), found.at({forward, micro_batch, g + 1})};
      const auto& [b, next_b] =
          std::pair{found.at({gradient_kind, micro_batch, g}), found.at({gradient_kind, micro_batch, g + 1})};
      violations += next_f.begin < f.end + communication(g) - kRounding;
      violations += b.begin < next_b.end + communication(g + 1) - kRounding;
    }
  }
  for (const auto& line : simulation.timeline) {
    double clock = 0;
    for (const TimedAction& timed : line) {
      if (!is_compute(timed.action.kind)) continue;
      violations += timed.begin < clock - kRounding;
      clock = timed.end;
    }
  }
  return violations;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(simulator)

BOOST_AUTO_TEST_CASE(bubbles_are_those_of_the_papers) {
  for (const ActionCosts& costs :
       {ActionCosts{1, 1, 1, 0}, ActionCosts{1, 1.25, 0.75, 0}, ActionCosts{1, 2, 1, 0}}) {
    for (const Schedule& schedule : every_schedule()) {
      if (!textbook_applies(schedule)) continue;
      const Simulation simulation = simulate(schedule, {costs});
      const double expected = work(schedule.shape, costs) + textbook_bubble(schedule, costs);
      BOOST_REQUIRE_MESSAGE(std::abs(simulation.makespan - expected) < kRounding,
                            describe(schedule) << " takes " << simulation.makespan << ", not " << expected);
      const double fraction = textbook_bubble(schedule, costs) / expected;
      BOOST_REQUIRE_SMALL(simulation.bubble_fraction - fraction, kRounding);
    }
  }
}

BOOST_AUTO_TEST_CASE(bubble_fractions_are_the_known_formulas) {
  const int p = 4, v = 3, m = 8;
  const auto fraction = [](ScheduleKind kind, const PipelineShape& shape) {
    return simulate(make_schedule(kind, shape), {ActionCosts{}}).bubble_fraction;
  };
  BOOST_CHECK_SMALL(fraction(ScheduleKind::gpipe, {p, 1, m}) - (p - 1.0) / (m + p - 1), kRounding);
  BOOST_CHECK_SMALL(fraction(ScheduleKind::one_f_one_b, {p, 1, m}) - (p - 1.0) / (m + p - 1), kRounding);
  BOOST_CHECK_SMALL(fraction(ScheduleKind::interleaved, {p, v, m}) - (p - 1.0) / (v * m + p - 1), kRounding);
  BOOST_CHECK_SMALL(fraction(ScheduleKind::zero_bubble, {p, 1, m}) - (p - 1.0) / (3 * m + p - 1), kRounding);
}

BOOST_AUTO_TEST_CASE(evaluations_end_as_soon_as_the_ring_allows) {
  for (int p = 1; p <= 8; ++p)
    for (int v = 1; v <= (p == 1 ? 1 : 4); ++v)
      for (int m = 1; m <= 20; ++m) {
        const Simulation simulation = simulate(make_forward_schedule({p, v, m}), {ActionCosts{}});
        // A group that does not fill the ring goes round it all the same.
        const int rest = m % p, rounds = m / p * p * v + (rest == 0 ? 0 : p * (v - 1) + rest);
        BOOST_CHECK_SMALL(simulation.makespan - (rounds + p - 1), kRounding);
      }
}

BOOST_AUTO_TEST_CASE(an_evaluation_that_goes_back_is_named) {
  Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 3});
  schedule.trains = false;
  BOOST_CHECK_EXCEPTION(
      simulate(schedule, {ActionCosts{}}), ContractViolation, [](const ContractViolation& e) {
        return std::string(e.what()).find("an evaluation goes forward only") != std::string::npos;
      });
}

BOOST_AUTO_TEST_CASE(zero_bubble_never_takes_longer_than_1f1b) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int micro_batches = 1; micro_batches <= 16; ++micro_batches) {
      const PipelineShape shape{stages, 1, micro_batches};
      const double split =
          simulate(make_schedule(ScheduleKind::zero_bubble, shape), {ActionCosts{}}).makespan;
      const double joint =
          simulate(make_schedule(ScheduleKind::one_f_one_b, shape), {ActionCosts{}}).makespan;
      BOOST_TEST(split <= joint + kRounding);
      if (stages > 1) BOOST_TEST(split < joint - kRounding);
    }
  }
}

BOOST_AUTO_TEST_CASE(peak_live_activations_are_those_of_the_schedule) {
  for (const Schedule& schedule : every_schedule()) {
    const Simulation simulation = simulate(schedule, {ActionCosts{}});
    BOOST_REQUIRE_EQUAL(simulation.peak_live_activations.size(), schedule.ranks.size());
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      BOOST_REQUIRE_EQUAL(simulation.peak_live_activations[rank], schedule.ranks[rank].peak_live_activations);
    }
  }
}

BOOST_AUTO_TEST_CASE(nothing_begins_before_its_input_is_there) {
  for (const Schedule& schedule : every_schedule()) {
    std::vector<ActionCosts> costs;  // uneven chunks and slow transfers
    for (int g = 0; g < schedule.shape.global_chunks(); ++g) {
      costs.push_back({1 + 0.5 * (g % 3), 2 - 0.25 * (g % 2), 0.5 + 0.75 * (g % 4), 0.125 * (g % 5)});
    }
    const Simulation simulation = simulate(schedule, costs);
    BOOST_REQUIRE_MESSAGE(count_too_early(schedule, simulation, costs) == 0, describe(schedule));
  }
}

BOOST_AUTO_TEST_CASE(the_check_above_sees_a_computation_that_begins_too_early) {
  const Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 2});
  const std::vector<ActionCosts> costs{ActionCosts{1, 1, 1, 0.5}};
  Simulation simulation = simulate(schedule, costs);
  for (TimedAction& timed : simulation.timeline[1]) {
    if (timed.action == Action{ActionKind::forward, 0, 0}) timed.begin -= 0.25;
  }
  BOOST_TEST(count_too_early(schedule, simulation, costs) == 1);
}

BOOST_AUTO_TEST_CASE(a_stage_waits_for_its_receives_and_never_for_its_sends) {
  const double c = 0.25;
  // GPipe, 1f1b and zero-bubble with a full pipeline: each hop once forwards, once backwards, to fill and
  // drain it, and then every micro-batch's two receives.
  for (const int m : {4, 8, 16}) {
    const double time = simulate(make_schedule(ScheduleKind::gpipe, {4, 1, m}), {{1, 1, 1, c}}).makespan;
    BOOST_CHECK_SMALL(time - (3.0 * (m + 3) + 2 * c * (3 + m - 1)), kRounding);
  }
  const auto extra = [&](ScheduleKind kind, int chunks, int m) {
    const Schedule schedule = make_schedule(kind, {4, chunks, m});
    return simulate(schedule, {{1, 1, 1, c}}).makespan - simulate(schedule, {{1, 1, 1, 0}}).makespan;
  };
  for (const ScheduleKind kind : {ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble}) {
    BOOST_CHECK_SMALL(extra(kind, 1, 16) - extra(kind, 1, 8) - 2 * c * 8, kRounding);
    BOOST_CHECK_SMALL(extra(kind, 1, 32) - extra(kind, 1, 8) - 2 * c * 24, kRounding);
  }
  // In the ring receives start with the last send of their channel. The model's ends have none to start with:
  // the first stage's of gradients and the last one's of activations, one of two chunks each.
  BOOST_CHECK_SMALL(extra(ScheduleKind::interleaved, 2, 16) - extra(ScheduleKind::interleaved, 2, 8) - c * 8,
                    kRounding);
  BOOST_CHECK_SMALL(extra(ScheduleKind::interleaved, 2, 32) - extra(ScheduleKind::interleaved, 2, 8) - c * 24,
                    kRounding);
}

BOOST_AUTO_TEST_CASE(receives_ahead_hide_transfers_shorter_than_a_computation) {
  const double c = 0.25;
  for (const Schedule& schedule : every_schedule(ReceiveStart::ahead)) {
    const auto [p, v, m] = schedule.shape;
    const auto seconds = [](const Schedule& played, double transfer) {
      return simulate(played, {{1, 1, 1, transfer}}).makespan;
    };
    const double ahead = seconds(schedule, c);
    BOOST_REQUIRE_MESSAGE(ahead < seconds(make_schedule(schedule.kind, schedule.shape), c) + kRounding,
                          describe(schedule));
    // What is left: each hop once forwards and once backwards, to fill the pipeline and to drain it.
    if (m >= p && (schedule.kind == ScheduleKind::gpipe || schedule.kind == ScheduleKind::one_f_one_b))
      BOOST_REQUIRE_MESSAGE(std::abs(ahead - (3 * (m + p - 1) + 2 * c * (p - 1))) < kRounding,
                            describe(schedule) << " takes " << ahead);
  }
}

BOOST_AUTO_TEST_CASE(receives_ahead_are_not_for_a_first_step) {
  // The last stage waits for both activations ahead of its first forward, which loads a kernel, the first
  // stage for that forward's gradient ahead of its second one.
  Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 2}, ReceiveStart::ahead);
  simulate(schedule, {ActionCosts{}});
  schedule.receives = ReceiveStart::when_needed;
  BOOST_CHECK_EXCEPTION(simulate(schedule, {ActionCosts{}}), ContractViolation, says({"deadlocks"}));
}

BOOST_AUTO_TEST_CASE(costs_may_differ_a_chunk) {
  // Two stages, one micro-batch: everything in line.
  const Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 1});
  const Simulation simulation = simulate(schedule, {{1, 2, 3, 0.5}, {10, 20, 30, 5}});
  BOOST_TEST(simulation.makespan == 1 + 0.5 + 10 + 20 + 30 + 5 + 2 + 3);
  BOOST_CHECK_CLOSE(simulation.bubble_fraction, 1 - 66 / (2 * 71.5), kRounding);
  BOOST_CHECK_EXCEPTION(simulate(schedule, {{}, {}, {}}), ContractViolation, says({"3 costs", "2 global"}));
  BOOST_CHECK_EXCEPTION(simulate(schedule, {{1, -1, 1, 0}}), ContractViolation, says({"negative"}));
  BOOST_TEST(simulate(schedule, {{0, 0, 0, 0}}).bubble_fraction == 0);
}

BOOST_AUTO_TEST_CASE(a_computation_waits_for_the_send_before_last) {
  // The second stage is slow: it starts its second receive when its first forward (1 to 11) is done, the
  // third at 21. Until then the first stage cannot give away its outputs, and has no buffer for another.
  const Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 5});
  const Simulation simulation = simulate(schedule, {{1, 1, 1, 0}, {10, 1, 1, 0}});
  const auto found = by_global_chunk(schedule, simulation);
  BOOST_TEST(found.at({ActionKind::forward, 2, 0}).begin == 2);
  BOOST_TEST(found.at({ActionKind::forward, 3, 0}).begin == 11);
  BOOST_TEST(found.at({ActionKind::send_activation, 2, 0}).end == 21);
  BOOST_TEST(found.at({ActionKind::forward, 4, 0}).begin == 21);
}

BOOST_AUTO_TEST_CASE(a_loss_waits_for_the_gradient_sent_before_last) {
  // The first gradient is under way from 4 to 104, the second one behind it: there is none for a third loss.
  const Schedule schedule = make_schedule(ScheduleKind::one_f_one_b, {2, 1, 4}, ReceiveStart::ahead);
  const auto found = by_global_chunk(schedule, simulate(schedule, {{1, 1, 1, 0}, {1, 1, 1, 100}}));
  BOOST_TEST(found.at({ActionKind::backward, 1, 1}).end == 7);
  BOOST_TEST(found.at({ActionKind::send_gradient, 0, 1}).end == 104);
  BOOST_TEST(found.at({ActionKind::forward, 2, 1}).begin == 104);
}

BOOST_AUTO_TEST_CASE(transfers_of_a_channel_follow_each_other) {
  // The first stage's forwards end at 1 and 2, but a transfer takes 3. The second receive is started at 5.
  const Schedule schedule = make_schedule(ScheduleKind::gpipe, {2, 1, 2});
  const auto found = by_global_chunk(schedule, simulate(schedule, {{1, 1, 1, 3}}));
  BOOST_TEST(found.at({ActionKind::send_activation, 0, 0}).begin == 1);
  BOOST_TEST(found.at({ActionKind::send_activation, 0, 0}).end == 4);
  BOOST_TEST(found.at({ActionKind::send_activation, 1, 0}).begin == 4);
  BOOST_TEST(found.at({ActionKind::receive_activation, 1, 1}).begin == 5);
  BOOST_TEST(found.at({ActionKind::send_activation, 1, 0}).end == 8);
}

BOOST_AUTO_TEST_CASE(drawings_show_the_timeline) {
  const auto drawing = [](ScheduleKind kind, const PipelineShape& shape, const ActionCosts& costs) {
    return draw(simulate(make_schedule(kind, shape), {costs}));
  };
  BOOST_TEST(drawing(ScheduleKind::one_f_one_b, {2, 1, 3}, {}) ==
             "rank 0 |F0 F1 ......B0====F2 B1====...B2====|\n"
             "rank 1 |...F0 B0====F1 B1====F2 B2====......|\n");
  BOOST_TEST(drawing(ScheduleKind::zero_bubble, {2, 1, 2}, {}) ==
             "rank 0 |F0 F1 ...I0 W0 I1 W1 |\n"
             "rank 1 |...F0 I0 F1 I1 W0 W1 |\n");
  BOOST_TEST(drawing(ScheduleKind::interleaved, {2, 2, 2}, {1, 1, 0, 0}) ==
             "rank 0 |F0a F1a F0b F1b ....B0b ....B1b B0a B1a |\n"
             "rank 1 |....F0a F1a F0b B0b F1b B1b B0a B1a ....|\n");
  BOOST_TEST(drawing(ScheduleKind::gpipe, {1, 1, 1}, {0, 0, 0, 0}) == "rank 0 ||\n");
  // However short the shortest computation, a line stays of bounded length.
  BOOST_TEST(drawing(ScheduleKind::gpipe, {1, 1, 1}, {1e-9, 1, 1, 0}).size() < 4000u);
}

BOOST_AUTO_TEST_SUITE_END()
