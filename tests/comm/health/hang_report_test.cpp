// The words of a report, and what an activity does when the job is lost. No MPI here.
#include <algorithm>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/health/hang_report.hpp"
#include "comm/labels.hpp"

using namespace llama3d;

namespace {

std::optional<RankState> waiting(const std::string& label, double seconds, RunPosition position) {
  return RankState{label, seconds, position, {}};
}

std::vector<std::string> hosts_of(int ranks, int a_host) {
  std::vector<std::string> hosts;
  for (int rank = 0; rank < ranks; ++rank) hosts.push_back("node" + std::to_string(rank / a_host));
  return hosts;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_small_job_has_a_line_a_rank) {
  const std::optional<RankState> states[] = {
      waiting("tp.loss", 30.21, {12, 4}), waiting("", 0, {12, 3}), std::nullopt,
      RankState{"dp.all_gather.parameters", 29, {12, -1}, "NCCL: remote process exited"}};
  BOOST_TEST(
      hang_report("headline", hosts_of(4, 2), states, 0) ==
      "headline\n"
      "  rank 0 (host node0): waits in tp.loss since 30.2 s, step 12, micro-batch 4\n"
      "  rank 1 (host node0): in no communication (computing, or busy with files), step 12, micro-batch 3\n"
      "  rank 2 (host node1): no answer (stopped, dead or cut off: usually what the others wait for)\n"
      "  rank 3 (host node1): waits in dp.all_gather.parameters since 29.0 s, step 12; NCCL: remote process "
      "exited\n");
}

BOOST_AUTO_TEST_CASE(a_rank_that_nobody_answers_blames_the_network_too) {
  const std::optional<RankState> states[] = {std::nullopt, waiting("tp.loss", 30, {0, -1}), std::nullopt};
  const std::string report = hang_report("headline", hosts_of(3, 1), states, 1);
  BOOST_TEST(report.find("rank 1 (host node1): waits in tp.loss since 30.0 s, before the first step\n") !=
             std::string::npos);
  BOOST_TEST(report.find("rank 0 (host node0): no answer\n") != std::string::npos);
  BOOST_TEST(report.find("UDP") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_large_job_has_a_line_a_state) {
  std::vector<std::optional<RankState>> states;
  for (int rank = 0; rank < 512; ++rank)
    states.push_back(rank / 8 % 2 ? waiting("tp.loss", 30 + rank / 512.0, {12, 4})
                                  : waiting("pp.activation", 31, {12, rank < 256 ? 1 : 2}));
  states[77] = states[300] = std::nullopt;
  const std::string report = hang_report("headline", hosts_of(512, 8), states, 0);
  BOOST_TEST(std::count(report.begin(), report.end(), '\n') == 5);
  BOOST_TEST(report.find("  ranks 0-7, 16-23, 32-39, 48-55, 64-71, 80-87,") != std::string::npos);
  BOOST_TEST(
      report.find("240-247 (16 hosts): wait in pp.activation since 31.0 s, step 12, micro-batch 1\n") !=
      std::string::npos);
  BOOST_TEST(report.find(", ... (254 in all) (32 hosts): wait in tp.loss since 30.0 to 31.0 s") !=
             std::string::npos);
  BOOST_TEST(report.find("  ranks 77, 300 (hosts node37, node9): no answer (stopped") != std::string::npos);
  for (std::size_t begin = 0, end = 0; (end = report.find('\n', begin)) != std::string::npos; begin = end + 1)
    BOOST_TEST(end - begin < 250);
}

BOOST_AUTO_TEST_CASE(a_job_in_many_states_still_names_who_does_not_answer) {
  std::vector<std::optional<RankState>> states;
  for (int rank = 0; rank < 1000; ++rank) states.push_back(waiting("tp.loss", 30, {12, rank}));
  states[999] = std::nullopt;
  const std::string report = hang_report("headline", hosts_of(1000, 8), states, 0);
  BOOST_TEST(std::count(report.begin(), report.end(), '\n') < 100);
  BOOST_TEST(report.find("rank 999 (host node124): no answer") != std::string::npos);
  BOOST_TEST(report.find("ranks in 935 other states") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_state_survives_its_text) {
  for (const RankState& state :
       {RankState{"tp.loss", 3.25, {12, 4}, "it failed: code 3", "saving a checkpoint"}, RankState{}}) {
    const RankState again = RankState::decode(state.encode());
    BOOST_TEST(again.label == state.label);
    BOOST_TEST(again.seconds == state.seconds);
    BOOST_TEST(again.position.step == state.position.step);
    BOOST_TEST(again.position.micro_batch == state.position.micro_batch);
    BOOST_TEST(again.failure == state.failure);
    BOOST_TEST(again.phase == state.phase);
  }
}

BOOST_AUTO_TEST_CASE(nobody_gets_past_a_halted_activity) {
  using Use = void (*)(Activity&);
  const Use uses[] = {[](Activity& a) { a.enter(labels::tp_loss); }, [](Activity& a) { a.leave(); },
                      [](Activity& a) { a.pass(); }};
  for (const bool halts : {false, true})
    for (const Use use : uses) {
      struct Shared {
        Activity activity;
        std::atomic<bool> passed{false};
      };
      const auto shared = std::make_shared<Shared>();
      if (halts) shared->activity.halt();
      // It stays for ever, and goes with the process.
      std::thread([shared, use] {
        use(shared->activity);
        shared->passed = true;
      }).detach();
      for (int i = 0; i < (halts ? 10 : 1000) && !shared->passed; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      BOOST_TEST(shared->passed == !halts);
    }
}

BOOST_AUTO_TEST_CASE(what_loses_a_rank_is_told_to_who_looks) {
  const auto fail = [](Activity& activity) {
    activity.at({7, 2});
    activity.during(labels::pp_gradient, [] { throw RankLostError("gone"); });
  };
  Activity alone;
  BOOST_CHECK_THROW(fail(alone), RankLostError);
  BOOST_TEST(!alone.failure());

  // As a watchdog does, when it ends the job.
  struct Shared {
    Activity activity;
    std::atomic<bool> passed{false};
  };
  const auto shared = std::make_shared<Shared>();
  shared->activity.watched(true);
  std::thread([shared, fail] {
    try {
      fail(shared->activity);
    } catch (const RankLostError&) {
    }
    shared->passed = true;
  }).detach();
  for (int i = 0; i < 1000 && !shared->activity.failure(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  BOOST_REQUIRE(shared->activity.failure().has_value());
  shared->activity.halt();
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  BOOST_TEST(!shared->passed);

  // When it does not.
  Activity watched;
  watched.watched(true);
  BOOST_CHECK_THROW(fail(watched), RankLostError);
  BOOST_REQUIRE(watched.failure().has_value());
  BOOST_TEST(watched.failure()->operation.label == labels::pp_gradient);
  BOOST_TEST(watched.failure()->message == "gone");
  BOOST_TEST(watched.failure()->operation.position.step == 7);
  BOOST_TEST(watched.failure()->operation.position.micro_batch == 2);

  BOOST_CHECK_THROW(alone.during(labels::tp_loss, [] { throw DataError("not a rank"); }), DataError);
  BOOST_TEST(!alone.failure());
}
