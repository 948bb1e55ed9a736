// No room to write: a limit on file sizes in this process, and a small file system of its own in a child.
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <functional>
#include <iostream>

#include "base/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint_samples.hpp"
#include "io/describe.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/bench_file.hpp"
#include "io/metrics/metrics_file.hpp"
#include "io/safetensors/safetensors.hpp"
#include "io/tokens/token_file.hpp"
#include "support/error_message.hpp"
#include "support/file_size_limit.hpp"
#include "support/preconditions.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::FileSizeLimit;
using test::says;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t megabyte = std::int64_t{1} << 20;

// Runs in a child that ends as a program does, through exit(): HDF5's clean-up at exit runs if it is on.
int status_of_child(const std::function<int()>& action) {
  std::fflush(nullptr);  // or the child prints what waits here too
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = action();
    } catch (const std::exception& error) {
      fmt::print(stderr, "child: {}\n", error.what());
    }
    std::exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void write_pieces(const fs::path& folder, int pieces, std::int64_t elements) {
  const std::vector<float> data(static_cast<std::size_t>(elements), 2.0f);
  RankFileWriter writer(folder, 0);
  for (int i = 0; i < pieces; ++i) {
    writer.write({fmt::format("/model/{}", i), DType::fp32, {elements}, {{0, elements, 0, 1}}, data.data()});
  }
  write_global_view(folder, {writer.finish()}, "{}");
}

// A file system of `size` in this process's own mount namespace.
bool mount_small(const fs::path& place, const char* size) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", place.c_str(), "tmpfs", 0, size) == 0;
}

bool can_mount() {
  const test::TemporaryFolder folder;
  return status_of_child([&] { return mount_small(folder.path(), "size=24m") ? 0 : 1; }) == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(disk_full)

// Without the reserve: the library's own failed close must not end the process, nor stop later files.
BOOST_AUTO_TEST_CASE(hdf5_survives_a_failed_close) {
  const test::TemporaryFolder folder;
  const int status = status_of_child([&] {
    using namespace io;
    const std::vector<double> data(100000, 1.0);
    const auto write = [&](const fs::path& path) {
      Hdf5File file = create_file(path);
      const auto space = make_space({data.size()});
      const auto dataset = own_hdf5<Hdf5Dataset>(
          H5Dcreate2(file.get(), "x", H5T_IEEE_F64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          "create");
      write_range(dataset.get(), H5T_IEEE_F64LE, 0, data.size(), data.data());
      close_file(file);
    };
    {
      const FileSizeLimit limit(100000);
      try {
        write(folder / "a.h5");
        return 1;
      } catch (const Hdf5Error& error) {
        if (std::string(error.what()).find("File too large") == std::string::npos) return 2;
      }
    }
    write(folder / "b.h5");
    return extent_of(open_dataset(open_file(folder / "b.h5").get(), "x").get()).at(0) == data.size() ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_checkpoint_that_does_not_fit_leaves_the_earlier_one) {
  const test::TemporaryFolder folder;
  test::write_sample(folder / "step_00000001");
  const fs::path temporary = begin_checkpoint(folder / "step_00000002");
  {
    const FileSizeLimit limit(8 * megabyte);
    BOOST_CHECK_EXCEPTION(write_pieces(temporary, 20, megabyte / 4), CheckpointWriteError,
                          says({"rank_00000.h5", "File too large"}));
    RankFileWriter writer(temporary, 1);
    const std::vector<float> data(static_cast<std::size_t>(4 * megabyte));
    const CheckpointPiece piece{
        "/model/a", DType::fp32, {4 * megabyte}, {{0, 4 * megabyte, 0, 1}}, data.data()};
    BOOST_CHECK_THROW(writer.write(piece), CheckpointWriteError);
    BOOST_CHECK_THROW(writer.finish(), ContractViolation);  // a bad file stays bad
  }
  abandon_checkpoint(folder / "step_00000002");
  BOOST_TEST(!fs::exists(temporary));
  BOOST_REQUIRE(list_checkpoints(folder.path()).size() == 1u);
  BOOST_TEST(test::holds_sample(CheckpointReader(folder / "step_00000001")));
  // With room again, the next one is written by the same process.
  const fs::path again = begin_checkpoint(folder / "step_00000002");
  BOOST_CHECK_NO_THROW(write_pieces(again, 20, megabyte / 4));
  commit_checkpoint(again, folder / "step_00000002");
  BOOST_TEST(CheckpointReader(folder / "step_00000002").verify() == 20 * megabyte);
}

// Beside its data a checkpoint needs little: most of its names and headers.
BOOST_AUTO_TEST_CASE(a_checkpoint_fits_where_there_is_room_for_its_data) {
  const test::TemporaryFolder folder;
  const fs::path path = begin_checkpoint(folder / "step_00000001");
  const FileSizeLimit limit(megabyte + megabyte / 8);
  write_pieces(path, 4, megabyte / 16);
  BOOST_TEST(CheckpointReader(path).verify() == megabyte);
}

// The room that is asked for covers what HDF5 takes: a file may grow to nothing past it.
BOOST_AUTO_TEST_CASE(many_small_tensors_fail_before_hdf5_does) {
  for (const std::int64_t limit_bytes : {megabyte / 4, megabyte, megabyte + 12'345, 3 * megabyte}) {
    const test::TemporaryFolder folder;
    const fs::path path = begin_checkpoint(folder / "step_00000001");
    const FileSizeLimit limit(limit_bytes);
    RankFileWriter writer(path, 0);
    const float value = 1;
    const auto write_many = [&] {
      for (int i = 0; i < 100'000; ++i)
        writer.write({fmt::format("/model/{}/{}", i % 7,
                                  std::string(static_cast<std::size_t>(i % 90), 'x') + std::to_string(i)),
                      DType::fp32,
                      {1},
                      {{0, 1, 0, 1}},
                      &value});
    };
    BOOST_CHECK_EXCEPTION(write_many(), CheckpointWriteError, says({"no room to write: File too large"}));
  }
}

BOOST_AUTO_TEST_CASE(a_token_file_that_cannot_begin_leaves_nothing) {
  const test::TemporaryFolder folder;
  const FileSizeLimit limit(megabyte);
  BOOST_CHECK_THROW(TokenFileWriter(folder / "a.h5", {"bytes", 259, "a test", false}), DataError);
  BOOST_TEST(fs::is_empty(folder.path()));
}

BOOST_AUTO_TEST_CASE(a_token_file_that_does_not_fit_is_no_file) {
  const test::TemporaryFolder folder;
  const std::vector<std::uint32_t> document(100000, 7);
  {
    const FileSizeLimit limit(20 * megabyte);
    TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
    const auto append_many = [&] {
      for (int i = 0; i < 100; ++i) writer.append_document(document);
    };
    BOOST_CHECK_EXCEPTION(append_many(), DataError, says({"a.h5", "File too large"}));
    BOOST_CHECK_THROW(writer.finish(), ContractViolation);
  }
  BOOST_TEST(fs::is_empty(folder.path()));
}

BOOST_AUTO_TEST_CASE(metrics_that_do_not_fit_keep_their_rows_and_go_on_later) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  MetricsFile file(path);
  TrainRow row;
  std::int64_t written = 0;
  {
    const FileSizeLimit limit(2 * megabyte);
    const auto append_many = [&] {
      for (; written < 100000; ++written) {
        row.step = written;
        file.append(row);
      }
    };
    BOOST_CHECK_EXCEPTION(append_many(), Error, says({"metrics.h5", "File too large"}));
  }
  BOOST_TEST(written > 1000);
  BOOST_TEST(!file.broken());
  BOOST_TEST(file.rows("train") == written);
  row.step = written;
  file.append(row);
  BOOST_TEST(file.rows("train") == written + 1);
  BOOST_TEST((describe_file(path).find(fmt::format("/train: {} rows", written + 1)) != std::string::npos));
}

BOOST_AUTO_TEST_CASE(a_full_disk_is_no_reason_to_set_metrics_aside) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  { MetricsFile(path).append(ValidRow{1, 2, 3}); }
  {
    const FileSizeLimit limit(megabyte);
    BOOST_CHECK_EXCEPTION(MetricsFile(path, 5), Error, says({"metrics.h5", "File too large"}));
  }
  MetricsFile file(path, 5);
  BOOST_TEST(file.set_aside().empty());
  BOOST_TEST(file.rows("valid") == 1);
}

BOOST_AUTO_TEST_CASE(bench_results_that_do_not_fit_are_no_file) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "bench.h5";
  const std::vector<BenchRow> rows(1000);
  {
    check_bench_file(path);
    const FileSizeLimit limit(100'000);
    BOOST_CHECK_EXCEPTION(write_bench_file(path, rows, {}), Error,
                          says({"bench.h5", "File too large", "`output`"}));
  }
  BOOST_TEST(fs::is_empty(folder.path()));
  write_bench_file(path, rows, {{"device", std::string(10'000, 'x')}});
  BOOST_TEST(io::extent_of(io::open_dataset(io::open_file(path).get(), "bench").get()).at(0) == rows.size());
}

BOOST_AUTO_TEST_CASE(safetensors_that_do_not_fit_are_no_file) {
  const test::TemporaryFolder folder;
  {
    const FileSizeLimit limit(megabyte);
    const std::vector<float> data(static_cast<std::size_t>(megabyte));
    SafetensorsWriter writer(folder / "model.safetensors", {{"a", DType::fp32, {megabyte}}});
    BOOST_CHECK_EXCEPTION(writer.write("a", data.data()), DataError,
                          says({"model.safetensors", "File too large"}));
  }
  BOOST_TEST(fs::is_empty(folder.path()));
}

// The real thing; elsewhere the file size limit stands for it.
BOOST_AUTO_TEST_CASE(a_full_file_system, *test::needs("root, or rights to mount a file system", can_mount)) {
  const test::TemporaryFolder folder;
  const int status = status_of_child([&] {
    if (!mount_small(folder.path(), "size=24m")) return 7;
    test::write_sample(folder / "step_00000001", 1);
    MetricsFile metrics(folder / "metrics.h5");
    const fs::path temporary = begin_checkpoint(folder / "step_00000002");
    try {
      write_pieces(temporary, 40, megabyte / 4);
      return 1;
    } catch (const CheckpointWriteError& error) {
      if (std::string(error.what()).find("No space left") == std::string::npos) return 2;
    }
    if (!test::holds_sample(CheckpointReader(folder / "step_00000001"))) return 3;
    // Fill what is left, so that the metrics have no room either.
    const auto filler = io::open_descriptor(folder / "filler", io::OpenMode::create);
    const std::string block(4096, 'x');
    std::int64_t filled = 0;
    try {
      for (;; filled += 4096) io::write_at(filler.get(), block.data(), block.size(), filled);
    } catch (const io::IoError&) {
    }
    ValidRow row;
    int failures = 0;
    for (; row.step < 200000 && failures == 0; ++row.step) {
      try {
        metrics.append(row);
      } catch (const Error&) {
        ++failures;
        --row.step;
      }
    }
    if (failures == 0) return 4;
    io::truncate(filler.get(), 0);
    abandon_checkpoint(folder / "step_00000002");
    metrics.append(row);
    const auto text = describe_file(folder / "metrics.h5");
    if (text.find(fmt::format("/valid: {} rows", row.step + 1)) == std::string::npos) return 5;
    const fs::path again = begin_checkpoint(folder / "step_00000002");
    write_pieces(again, 8, megabyte / 4);
    commit_checkpoint(again, folder / "step_00000002");
    return CheckpointReader(folder / "step_00000002").verify() == 8 * megabyte ? 0 : 6;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()
