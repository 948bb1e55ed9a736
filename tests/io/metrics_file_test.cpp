#include "io/metrics/metrics_file.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "io/damage.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_format.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

TrainRow train_row(std::int64_t step) {
  TrainRow row;
  row.step = step;
  row.loss = 1.0 / static_cast<double>(step + 1);
  row.tokens = step * 1000;
  return row;
}

template <class Row>
std::vector<Row> read_table(const fs::path& path) {
  const auto file = io::open_file(path);
  const TableDescriptor table = table_of(Row{});
  const auto dataset = io::open_dataset(file.get(), table.name);
  std::vector<Row> rows(io::extent_of(dataset.get()).at(0));
  io::read_range(dataset.get(), io::row_type(table).get(), 0, rows.size(), rows.data());
  return rows;
}

// Appends rows until killed, telling the parent how many are flushed.
[[noreturn]] void append_for_ever(const fs::path& path, int pipe) {
  MetricsFile file(path);
  for (std::int64_t step = 0;; ++step) {
    file.append(train_row(step));
    if (::write(pipe, &step, sizeof step) != sizeof step) ::_exit(1);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(metrics_file)

BOOST_AUTO_TEST_CASE(rows_of_all_tables_come_back) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "run/metrics.h5";
  {
    MetricsFile file(path);
    BOOST_TEST(file.set_aside().empty());
    file.append(train_row(1));
    file.append(ValidRow{1, 2.5, 12.25});
    std::vector<RankRow> ranks(3);
    for (int r = 0; r < 3; ++r) ranks[static_cast<std::size_t>(r)].rank = r;
    file.append(ranks);
    std::vector<CommunicationRow> communication{make_communication(1, 0, "dp.all_gather.parameters"),
                                                make_communication(1, 2, std::string(60, 'x'))};
    communication[0].calls = 3;
    communication[0].bytes = 4096;
    communication[0].exposed_seconds = 0.25;
    file.append(communication);
    file.append(std::vector<CommunicationRow>());
    file.append(make_event(1, 123, "checkpoint", "saved"));
    file.set_run_attribute("command", "llama3d train");
    file.set_run_attribute("gpus", std::int64_t{8});
    file.set_run_attribute("peak", 989e12);
    BOOST_TEST(file.rows("ranks") == 3);
    file.sync();
  }
  const auto train = read_table<TrainRow>(path);
  BOOST_REQUIRE(train.size() == 1u);
  BOOST_TEST(train[0].loss == 0.5);
  BOOST_TEST(train[0].tokens == 1000);
  BOOST_TEST(read_table<ValidRow>(path).at(0).perplexity == 12.25);
  BOOST_TEST(read_table<RankRow>(path).at(2).rank == 2);
  const auto communication = read_table<CommunicationRow>(path);
  BOOST_REQUIRE(communication.size() == 2u);
  BOOST_TEST(std::string(communication[0].label) == "dp.all_gather.parameters");
  BOOST_TEST(communication[0].calls == 3);
  BOOST_TEST(communication[0].bytes == 4096);
  BOOST_TEST(communication[0].exposed_seconds == 0.25);
  BOOST_TEST(::strnlen(communication[1].label, sizeof communication[1].label) == 48u);
  BOOST_TEST(std::string(read_table<EventRow>(path).at(0).kind) == "checkpoint");
  const auto hdf5 = io::open_file(path);
  const auto run = io::own_hdf5<io::Hdf5Group>(H5Gopen2(hdf5.get(), "run", H5P_DEFAULT), "open /run");
  BOOST_TEST(io::read_string_attribute(run.get(), "command") == "llama3d train");
  BOOST_TEST(io::read_integer_attribute(run.get(), "gpus") == 8);
  const auto train_table = io::open_dataset(hdf5.get(), "train");
  BOOST_TEST(io::read_string_attribute(train_table.get(), "step_seconds_unit") == "s");
  const auto communication_table = io::open_dataset(hdf5.get(), "communication");
  BOOST_TEST(io::read_string_attribute(communication_table.get(), "exposed_seconds_unit") == "s");
}

BOOST_AUTO_TEST_CASE(long_texts_are_cut_between_characters) {
  const EventRow row =
      make_event(0, 0, "a kind that is far too long", std::string(255, 'x') + "\xc3\xbc and more");
  BOOST_TEST(std::string(row.kind, sizeof row.kind) == "a kind that is f");
  BOOST_TEST(::strnlen(row.text, sizeof row.text) == 255u);
}

BOOST_AUTO_TEST_CASE(resuming_cuts_later_rows_and_continues) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  {
    MetricsFile file(path);
    for (int step = 1; step <= 2000; ++step) file.append(train_row(step));
    // Rows out of order: those to be kept move up.
    for (const int step : {10, 1500, 20, 1600, 30})
      file.append(make_event(step, 0, "skip", std::to_string(step)));
    for (const int step : {990, 1000, 1010})
      for (const int rank : {0, 1}) file.append(make_communication(step, rank, "world.totals"));
  }
  {
    MetricsFile file(path, 1000);
    BOOST_TEST(file.set_aside().empty());
    BOOST_TEST(file.rows("train") == 1000);
    BOOST_TEST(file.rows("events") == 3);
    BOOST_TEST(file.rows("communication") == 4);
    file.append(train_row(1001));
  }
  const auto train = read_table<TrainRow>(path);
  BOOST_REQUIRE(train.size() == 1001u);
  for (std::size_t i = 0; i < train.size(); ++i)
    BOOST_TEST(train[i].step == static_cast<std::int64_t>(i) + 1);
  const auto events = read_table<EventRow>(path);
  BOOST_TEST(std::string(events.at(1).text) == "20");
  BOOST_TEST(std::string(events.at(2).text) == "30");
}

BOOST_AUTO_TEST_CASE(resuming_adds_a_table_that_not_every_file_has) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  { MetricsFile(path).append(train_row(1)); }
  {
    const auto file = io::open_file(path, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "communication", H5P_DEFAULT) >= 0);
  }
  {
    MetricsFile file(path, 1);
    BOOST_TEST(file.set_aside().empty());
    BOOST_TEST(file.rows("train") == 1);
    file.append(make_communication(2, 0, "world.totals"));
  }
  BOOST_TEST(read_table<CommunicationRow>(path).at(0).step == 2);
}

BOOST_AUTO_TEST_CASE(resuming_without_a_file_begins_one) {
  const test::TemporaryFolder folder;
  MetricsFile file(folder / "metrics.h5", 5);
  BOOST_TEST(file.set_aside().empty());
  BOOST_TEST(file.rows("train") == 0);
}

BOOST_AUTO_TEST_CASE(a_new_run_keeps_the_file_of_the_old_one) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  { MetricsFile(path).append(train_row(1)); }
  { MetricsFile(path).append(train_row(2)); }
  MetricsFile third(path);
  BOOST_TEST(third.set_aside() == folder / "metrics.h5.previous-2");
  BOOST_TEST(read_table<TrainRow>(folder / "metrics.h5.previous-1").at(0).step == 1);
  BOOST_TEST(read_table<TrainRow>(folder / "metrics.h5.previous-2").at(0).step == 2);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_is_set_aside_with_its_reason) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  const auto expect_aside = [&](int number, const std::string& reason) {
    MetricsFile file(path, 100);
    BOOST_TEST(file.set_aside() == path.string() + ".damaged-" + std::to_string(number));
    BOOST_TEST_CONTEXT("reason: " << file.set_aside_reason()) {
      BOOST_TEST((file.set_aside_reason().find(reason) != std::string::npos));
    }
    file.append(train_row(1));
    BOOST_TEST(file.rows("train") == 1);
  };
  { MetricsFile(path).append(train_row(1)); }
  test::truncate_by(path, 3000);
  expect_aside(1, "truncated");
  test::write_bytes(path, "");
  expect_aside(2, "empty");
  test::write_bytes(path, "step,loss\n1,2.5\n");
  expect_aside(3, "not an HDF5 file");
  { const auto foreign = io::create_file(path); }
  expect_aside(4, "no metrics file");
  {
    const auto file = io::open_file(path, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "ranks", H5P_DEFAULT) >= 0);
  }
  expect_aside(5, "/ranks is missing");
}

BOOST_AUTO_TEST_CASE(a_folder_in_its_place_is_an_error) {
  const test::TemporaryFolder folder;
  BOOST_CHECK_EXCEPTION(MetricsFile(folder.path(), 1), Error,
                        says({folder.path().string(), "Is a directory"}));
}

// A kill between the two writes of a first row in a new chunk, made by hand: the length is there, the row is
// not.
BOOST_AUTO_TEST_CASE(a_row_that_was_never_written_is_marked_and_dropped) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  const auto chunk = static_cast<std::int64_t>(table_of(TrainRow{}).chunk_rows);
  {
    MetricsFile file(path);
    for (std::int64_t step = 0; step < chunk; ++step) file.append(train_row(step));
  }
  {
    const auto file = io::open_file(path, true);
    const auto size = static_cast<hsize_t>(chunk + 1);
    BOOST_REQUIRE(H5Dset_extent(io::open_dataset(file.get(), "train").get(), &size) >= 0);
  }
  BOOST_TEST(read_table<TrainRow>(path).back().step == -1);
  BOOST_TEST(std::isnan(read_table<TrainRow>(path).back().loss));
  MetricsFile file(path, chunk + 10);
  BOOST_TEST(file.set_aside().empty());
  BOOST_TEST(file.rows("train") == chunk);
}

// The writer is killed at random moments of a tight loop, so mostly inside an append.
BOOST_AUTO_TEST_CASE(a_kill_loses_no_flushed_row) {
  const test::TemporaryFolder folder;
  for (int trial = 0; trial < 10; ++trial) {
    const fs::path path = folder / ("metrics_" + std::to_string(trial) + ".h5");
    int pipe[2];
    BOOST_REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    if (child == 0) append_for_ever(path, pipe[1]);
    ::close(pipe[1]);
    std::int64_t flushed = -1;
    const std::int64_t enough = 1 + 97 * trial;
    while (flushed < enough && ::read(pipe[0], &flushed, sizeof flushed) == sizeof flushed) {
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(pipe[0], &flushed, sizeof flushed) == sizeof flushed) {
    }
    ::close(pipe[0]);
    BOOST_REQUIRE(flushed >= enough);
    const auto rows = read_table<TrainRow>(path);
    BOOST_REQUIRE(std::ssize(rows) > flushed);
    for (std::int64_t i = 0; i <= flushed; ++i) BOOST_REQUIRE(rows[static_cast<std::size_t>(i)].step == i);
    MetricsFile resumed(path, flushed);
    BOOST_TEST(resumed.set_aside().empty());
    BOOST_TEST(resumed.rows("train") == flushed + 1);
    resumed.append(train_row(flushed + 1));
  }
}

BOOST_AUTO_TEST_SUITE_END()
