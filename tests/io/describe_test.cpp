#include "io/describe.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "io/checkpoint_samples.hpp"
#include "io/damage.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_file.hpp"
#include "io/safetensors/safetensors.hpp"
#include "io/tokens/token_file.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

void expect_words(const std::string& text, std::initializer_list<std::string> words) {
  for (const std::string& word : words) {
    BOOST_TEST_CONTEXT("looking for '" << word << "' in:\n" << text) {
      BOOST_TEST((text.find(word) != std::string::npos));
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(describe)

BOOST_AUTO_TEST_CASE(checkpoints_and_rank_files) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "step_00000100";
  test::write_sample(path, 2, 1, R"({"step": 100, "note": "hello"})");
  for (const fs::path& name : {path, path / "checkpoint.h5"}) {
    expect_words(describe_file(name),
                 {"6 tensors in 2 rank files", "step = 100", "note = hello",
                  "/model/model.embed_tokens.weight", "fp32", "(37, 23)", "bf16", "(64, 8)"});
  }
  BOOST_TEST((describe_file(path).find("checksums") == std::string::npos));
  expect_words(describe_file(path, true), {"checksums: all right"});
  expect_words(describe_file(path / "rank_00001.h5"), {"rank 1", "step_00000100", "/model/", "[", "fp32"});
  test::truncate_by(path / "rank_00001.h5", 10);
  BOOST_CHECK_EXCEPTION(describe_file(path), DataError, says({"rank_00001.h5"}));
  BOOST_CHECK_EXCEPTION(describe_file(path / "rank_00001.h5"), DataError,
                        says({"rank_00001.h5", "truncated"}));
}

BOOST_AUTO_TEST_CASE(nothing_in_a_file_acts_on_the_terminal) {
  const test::TemporaryFolder folder;
  const std::string escape =
      "\x1b[2Jx\xC2\x9B"
      "31m\nchecksums: all right";
  const auto expect_plain = [](const std::string& text) {
    BOOST_TEST_CONTEXT(text) {
      BOOST_TEST((text.find('\x1b') == std::string::npos));
      BOOST_TEST((text.find('\x9b') == std::string::npos));
      BOOST_TEST((text.find("\nchecksums") == std::string::npos));
      BOOST_TEST((text.find("\\u001b[2Jx\\u009b31m") != std::string::npos));
    }
  };
  const fs::path step = folder / "step_00000001";
  test::write_sample(step, 1, 1, R"({"note": "\u001b[2Jx\u009b31m\nchecksums: all right", "a\nb": 1})");
  expect_plain(describe_file(step));
  {
    TokenFileWriter writer(folder / "a.h5", {escape, 259, escape, false});
    writer.append_document(std::vector<std::uint32_t>{256});
    writer.finish();
  }
  expect_plain(describe_file(folder / "a.h5"));
  {
    MetricsFile metrics(folder / "metrics.h5");
    metrics.set_run_attribute("model", escape);
    metrics.append(make_event(1, 2, "note", escape));
  }
  expect_plain(describe_file(folder / "metrics.h5"));
  {
    SafetensorsWriter writer(folder / "a.safetensors", {{"\x1b[2Jx\xC2\x9B"
                                                         "31m",
                                                         DType::fp32,
                                                         {1}}});
    const float zero = 0;
    writer.write(
        "\x1b[2Jx\xC2\x9B"
        "31m",
        &zero);
    writer.finish();
  }
  expect_plain(describe_file(folder / "a.safetensors"));
  const fs::path named = folder /
                         "\x1b[2Jx\xC2\x9B"
                         "31m.h5";
  fs::copy_file(folder / "a.h5", named);
  expect_plain(describe_file(named));
}

BOOST_AUTO_TEST_CASE(token_files) {
  const test::TemporaryFolder folder;
  TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", true});
  writer.append_document(std::vector<std::uint32_t>{256, 65, 66}, std::vector<std::uint8_t>{0, 1, 1});
  writer.finish();
  expect_words(describe_file(folder / "a.h5"), {"3 tokens in 1 documents", "tokenizer = bytes", "256 65 66"});
  expect_words(describe_file(folder / "a.h5", true),
               {"loss mask: all right (3 tokens, 2 of them targets)", "attributes have no checksum"});
}

BOOST_AUTO_TEST_CASE(token_files_without_checksums_are_not_called_right) {
  const test::TemporaryFolder folder;
  TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
  writer.append_document(std::vector<std::uint32_t>{256, 65, 66});
  writer.finish();
  {
    const auto file = io::open_file(folder / "a.h5", true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "tokens", H5P_DEFAULT) >= 0);
    const auto tokens = io::own_hdf5<io::Hdf5Dataset>(
        H5Dcreate2(file.get(), "tokens", H5T_STD_U32LE, io::make_space({3}).get(), H5P_DEFAULT, H5P_DEFAULT,
                   H5P_DEFAULT),
        "create");
    const std::uint32_t ids[] = {1, 2, 3};
    io::write_range(tokens.get(), H5T_NATIVE_UINT32, 0, 3, ids);
  }
  const std::string text = describe_file(folder / "a.h5", true);
  expect_words(text, {"no checksums of tokens: read 3 tokens", "all ids below 259"});
  BOOST_TEST((text.find("all right") == std::string::npos));
}

BOOST_AUTO_TEST_CASE(metrics_files) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "metrics.h5";
  {
    MetricsFile file(path);
    for (int step = 1; step <= 5; ++step) {
      TrainRow row;
      row.step = step;
      row.loss = step + 0.5;
      // As 0 / 0 is on x86.
      row.grad_norm = std::copysign(std::numeric_limits<double>::quiet_NaN(), -1.0);
      file.append(row);
    }
    file.append(make_event(3, 0, "signal", "SIGTERM"));
    file.append(make_communication(5, 1, "world.totals"));
    file.set_run_attribute("grid", "2x2x2");
  }
  expect_words(
      describe_file(path),
      {"/train: 5 rows", "first: step=1", "last:  step=5", "loss=5.5", "grad_norm=nan", "/valid: 0 rows",
       "/communication: 1 rows", "rank=1 label=world.totals", "kind=signal text=SIGTERM", "grid = 2x2x2"});
  {
    const auto file = io::open_file(path, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "communication", H5P_DEFAULT) >= 0);
  }
  const std::string without = describe_file(path);
  expect_words(without, {"/train: 5 rows", "kind=signal text=SIGTERM"});
  BOOST_TEST((without.find("/communication") == std::string::npos));
}

BOOST_AUTO_TEST_CASE(safetensors_files) {
  const test::TemporaryFolder folder;
  const std::vector<float> data(6);
  SafetensorsWriter writer(folder / "model.safetensors", {{"a.weight", DType::fp32, {2, 3}}});
  writer.write("a.weight", data.data());
  writer.finish();
  for (const fs::path& name : {folder.path(), folder / "model.safetensors"}) {
    expect_words(describe_file(name), {"1 tensors in 1 files", "a.weight", "F32", "(2, 3)"});
  }
}

BOOST_AUTO_TEST_CASE(everything_else_is_refused) {
  const test::TemporaryFolder folder;
  BOOST_CHECK_EXCEPTION(describe_file(folder / "nothing"), DataError, says({"nothing", "no such file"}));
  BOOST_CHECK_EXCEPTION(describe_file(folder.path()), DataError, says({"neither checkpoint.h5"}));
  test::write_bytes(folder / "a.txt", "text");
  BOOST_CHECK_EXCEPTION(describe_file(folder / "a.txt"), DataError, says({"a.txt", "not an HDF5 file"}));
  { const auto foreign = io::create_file(folder / "foreign.h5"); }
  BOOST_CHECK_EXCEPTION(describe_file(folder / "foreign.h5"), DataError,
                        says({"foreign.h5", "not one of our files"}));
}

BOOST_AUTO_TEST_SUITE_END()
