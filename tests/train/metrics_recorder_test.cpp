#include "train/metrics_recorder.hpp"

#include <boost/test/unit_test.hpp>

#include "io/describe.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;

namespace {

// A recorder of one process; steps write a row each.
struct Recorded {
  void step(std::int64_t number) {
    metrics.valid({number, 1, 2});
    metrics.sync();
  }
  void expect_note(std::size_t number, const std::string& words) {
    BOOST_REQUIRE(notes.size() > number);
    BOOST_TEST((notes[number].find(words) != std::string::npos), notes[number]);
  }
  bool has(const std::string& file, const std::string& words) {
    return describe_file(folder / file).find(words) != std::string::npos;
  }

  test::TemporaryFolder folder;
  std::vector<std::string> notes;
  bool may_write = true;
  std::unique_ptr<ControlPlane> control = make_local_control_plane();
  MetricsRecorder metrics{folder / "run/metrics.h5",
                          {},
                          *control,
                          [this](const std::string& text) { notes.push_back(text); },
                          [this] { return may_write; }};
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(metrics_recorder, Recorded)

BOOST_AUTO_TEST_CASE(a_disk_that_was_full_for_a_while_costs_no_row) {
  step(1);
  {
    const test::FileSizeLimit limit(4096);
    step(2);
    step(3);
  }
  BOOST_REQUIRE(notes.size() == 1u);
  expect_note(0, "warning: metrics wait in memory");
  expect_note(0, "File too large");
  step(4);
  step(5);
  BOOST_REQUIRE(notes.size() == 2u);
  BOOST_TEST(notes[1] == "metrics are written again");
  metrics.finish();
  BOOST_TEST(notes.size() == 2u);
  BOOST_TEST(has("run/metrics.h5", "/valid: 5 rows"));
}

BOOST_AUTO_TEST_CASE(rows_that_never_could_be_written_are_counted) {
  const test::FileSizeLimit limit(4096);
  step(1);
  step(2);
  metrics.finish();
  BOOST_REQUIRE(notes.size() == 2u);
  expect_note(1, "warning: 2 rows of metrics could not be written");
}

BOOST_AUTO_TEST_CASE(a_file_that_was_removed_is_begun_anew_with_its_attributes) {
  metrics.attribute("grid", std::string("2x2"));
  step(1);
  std::filesystem::remove(folder / "run/metrics.h5");
  step(2);
  step(3);
  BOOST_REQUIRE(notes.size() == 1u);
  expect_note(0, "removed or renamed");
  BOOST_TEST(has("run/metrics.h5", "/valid: 2 rows"));
  BOOST_TEST(has("run/metrics.h5", "grid = 2x2"));
}

BOOST_AUTO_TEST_CASE(a_renamed_folder_keeps_its_rows_and_the_name_gets_those_that_follow) {
  step(1);
  std::filesystem::rename(folder / "run", folder / "moved");
  step(2);
  BOOST_TEST(has("moved/metrics.h5", "/valid: 1 rows"));
  BOOST_TEST(has("run/metrics.h5", "/valid: 1 rows"));
}

BOOST_AUTO_TEST_CASE(another_file_of_the_name_is_set_aside) {
  step(1);
  std::filesystem::remove(folder / "run/metrics.h5");
  folder.write("run/metrics.h5", "somebody's notes");
  step(2);
  BOOST_TEST(std::filesystem::file_size(folder / "run/metrics.h5.previous-1") == 16u);
  BOOST_TEST(has("run/metrics.h5", "/valid: 1 rows"));
}

BOOST_AUTO_TEST_CASE(a_folder_of_another_run_is_left_alone) {
  step(1);
  std::filesystem::rename(folder / "run", folder / "moved");
  folder.write("run/metrics.h5", "the other run's");
  may_write = false;
  step(2);
  expect_note(0, "not this run's");
  BOOST_TEST(std::filesystem::file_size(folder / "run/metrics.h5") == 15u);
  metrics.finish();
  expect_note(1, "1 rows of metrics could not be written");
}

BOOST_AUTO_TEST_SUITE_END()
