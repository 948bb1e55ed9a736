#include "train/metrics_recorder.hpp"

#include <boost/test/unit_test.hpp>

#include "io/describe.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;

BOOST_AUTO_TEST_SUITE(metrics_recorder)

BOOST_AUTO_TEST_CASE(a_disk_that_was_full_for_a_while_costs_the_rows_of_that_while) {
  const test::TemporaryFolder folder;
  const auto control = make_local_control_plane();
  std::vector<std::string> notes;
  MetricsRecorder metrics(folder / "metrics.h5", {}, *control,
                          [&](const std::string& text) { notes.push_back(text); });
  const auto step = [&](std::int64_t number) {
    metrics.valid({number, 1, 2});
    metrics.sync();
  };
  step(1);
  {
    const test::FileSizeLimit limit(4096);
    step(2);
    step(3);
  }
  BOOST_REQUIRE(notes.size() == 1u);
  BOOST_TEST((notes[0].find("warning: metrics are left out") != std::string::npos), notes[0]);
  BOOST_TEST((notes[0].find("File too large") != std::string::npos), notes[0]);
  step(4);
  step(5);
  BOOST_REQUIRE(notes.size() == 2u);
  BOOST_TEST(notes[1] == "metrics are written again");
  BOOST_TEST((describe_file(folder / "metrics.h5").find("/valid: 3 rows") != std::string::npos));
}

BOOST_AUTO_TEST_SUITE_END()
