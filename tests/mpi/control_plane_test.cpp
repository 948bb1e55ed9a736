#include <boost/test/unit_test.hpp>
#include <set>
#include <string>
#include <thread>

#include "comm/failure.hpp"
#include "comm/labels.hpp"
#include "mpi/group_data.hpp"
#include "support/immediate_stream.hpp"
#include "support/mpi_fixture.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

std::string text_of(int rank, std::size_t length) {
  std::string text(length, '\0');
  for (std::size_t i = 0; i < length; ++i)
    text[i] = static_cast<char>(static_cast<std::size_t>(rank) * 7 + i);
  return text;
}

/// The error that all ranks get from a step that throws on the ranks for which `fails` holds.
template <class Fails>
std::string story(ControlPlane& plane, Fails&& fails) {
  try {
    fail_together(plane, [&] {
      if (fails(plane.rank())) throw DataError("file " + std::to_string(plane.rank()));
    });
  } catch (const CollectiveError& error) {
    return std::string(error.what()) + "/" + std::to_string(static_cast<int>(error.status())) + "/" +
           (error.place().empty() ? "all" : "some");
  }
  return "";
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_rank_gets_the_roots_text) {
  for (int root = 0; root < control().size(); ++root)
    for (const std::size_t length : {0, 1, 100, 200000}) {
      const bool is_root = control().rank() == root;
      BOOST_TEST(
          (control().broadcast(is_root ? text_of(root, length) : "other", root) == text_of(root, length)));
    }
  BOOST_CHECK_THROW(control().broadcast("", control().size()), ContractViolation);
}

BOOST_AUTO_TEST_CASE(every_rank_gets_all_texts_in_rank_order) {
  const auto length_on = [](int rank) { return static_cast<std::size_t>(rank % 3) * 1000; };  // some empty
  const auto texts = control().all_gather(text_of(control().rank(), length_on(control().rank())));
  BOOST_REQUIRE_EQUAL(texts.size(), static_cast<std::size_t>(control().size()));
  for (int rank = 0; rank < control().size(); ++rank)
    BOOST_TEST((texts[static_cast<std::size_t>(rank)] == text_of(rank, length_on(rank))));
}

BOOST_AUTO_TEST_CASE(the_largest_value_counts) {
  const int last = control().size() - 1;
  BOOST_TEST(control().all_max(-5 - control().rank()) == -5);
  BOOST_TEST(control().all_max((std::int64_t{1} << 40) + control().rank()) == (std::int64_t{1} << 40) + last);
}

BOOST_AUTO_TEST_CASE(places_on_a_node_are_counted_by_rank) {
  // Ranks of one host share its node; the place is the number of lower ranks there.
  const auto hosts = control().all_gather(control().host());
  int lower = 0, all = 0;
  for (int rank = 0; rank < control().size(); ++rank) {
    const bool here = hosts[static_cast<std::size_t>(rank)] == control().host();
    all += here;
    lower += here && rank < control().rank();
  }
  BOOST_TEST(control().node_size() == all);
  BOOST_TEST(control().node_rank() == lower);
  BOOST_TEST(!control().host().empty());
}

BOOST_AUTO_TEST_CASE(agreements_do_not_mix_with_tensors_under_way) {
  const ProcessGrid grid({.tp = control().size(), .pp = 1, .dp = 1}, control().rank());
  const auto set = session().make_communicators(grid);
  ImmediateStream stream;
  HostTensor tensor(DType::fp32, 1001);
  for (int i = 0; i < 1001; ++i) tensor.set(i, contribution(control().rank(), i));
  const auto work =
      set->world->all_reduce(tensor.tensor(), ReduceOperation::sum, labels::world_totals, stream);
  BOOST_TEST(control().all_max(control().rank()) == control().size() - 1);
  BOOST_TEST(control().broadcast("x", 0) == "x");
  work->wait(stream);
  std::vector<int> everyone;
  for (int rank = 0; rank < control().size(); ++rank) everyone.push_back(rank);
  BOOST_TEST(tensor.mismatches([&](std::int64_t i) { return serial_sum(everyone, i); }) == 0);
}

BOOST_AUTO_TEST_CASE(an_agreement_that_waits_is_seen_by_other_threads) {
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(100)); };
  const bool waits = control().rank() > 0;
  std::optional<OutstandingOperation> seen;
  control().barrier();
  std::thread other([&] {
    if (!waits) return;
    for (int i = 0; i < 100 && !(seen && seen->label == labels::control_barrier); ++i) {
      pause();
      seen = control().activity().longest();
    }
  });
  // Those that wait are seen before the first rank comes.
  if (!waits)
    for (int i = 0; i < 5; ++i) pause();
  control().barrier();
  other.join();
  if (waits) BOOST_TEST((seen && seen->label == labels::control_barrier));
  BOOST_TEST(!control().activity().longest());
}

BOOST_AUTO_TEST_CASE(a_failure_of_the_lowest_rank_is_told_by_all) {
  const int last = control().size() - 1;
  BOOST_TEST(story(control(), [](int) { return false; }) == "");
  BOOST_TEST(story(control(), [](int) { return true; }) == "file 0/3/all");
  const std::string alone = last == 0 ? "/3/all" : "/3/some";
  BOOST_TEST(story(control(), [&](int rank) { return rank == last; }) ==
             "file " + std::to_string(last) + alone);
  if (last >= 2) BOOST_TEST(story(control(), [](int rank) { return rank >= 1; }) == "file 1/3/some");
  BOOST_TEST(control().all_max(1) == 1);  // still usable
}

BOOST_AUTO_TEST_CASE(other_exceptions_count_as_plain_failures) {
  const auto plain = [](const CollectiveError& error) {
    return error.status() == ExitStatus::failure && std::string(error.what()) == "not ours\nat all";
  };
  BOOST_CHECK_EXCEPTION(fail_together(control(), [] { throw std::runtime_error("not ours\nat all"); }),
                        CollectiveError, plain);
  const auto unknown = [](const CollectiveError& error) { return error.status() == ExitStatus::failure; };
  BOOST_CHECK_EXCEPTION(fail_together(control(), [] { throw 3; }), CollectiveError, unknown);
}

BOOST_AUTO_TEST_CASE(a_job_of_one_process_agrees_with_itself) {
  const auto local = make_local_control_plane();
  BOOST_TEST(local->rank() == 0);
  BOOST_TEST(local->size() == 1);
  BOOST_TEST(local->node_rank() == 0);
  BOOST_TEST(local->node_size() == 1);
  BOOST_TEST(local->broadcast("text", 0) == "text");
  BOOST_TEST(local->all_gather("text").at(0) == "text");
  BOOST_TEST(local->all_max(-3) == -3);
  BOOST_TEST(story(*local, [](int) { return true; }) == "file 0/3/all");
  BOOST_TEST(run_and_report(*local, [] { return 75; }) == 75);
}

BOOST_AUTO_TEST_CASE(the_library_names_itself_in_one_line) {
  BOOST_TEST(!MpiSession::library_version().empty());
  BOOST_TEST(MpiSession::library_version().find('\n') == std::string::npos);
}
